"""Many networks, one knob: plans, sweeps with Ray, one database, comparisons. Uses sizer; only dashboards use it."""
