"""Optuna's storage with its cache, in which what has not ended is looked up and not sifted out of all trials."""

from __future__ import annotations

from collections.abc import Container

from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState


class Storage(_CachedStorage):
    """Optuna asks for the WAITING trials before every new one, and would go through all that there ever were."""

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna has it, in the order of their numbers; a copy each where only trials that have not ended count."""
        if states is None or any(state in states for state in TrialState if state.is_finished()):
            return super().get_all_trials(study_id, deepcopy, states)
        wanted = [state for state in TrialState if state in states]
        found = self._backend._get_trials(study_id, wanted, set(), -1)  # by the index sizer_trials_by_state
        with self._lock:
            self._studies.setdefault(study_id, _StudyInfo())
            self._add_trials_to_cache(study_id, found)
        return sorted(found, key=lambda trial: trial.number)
