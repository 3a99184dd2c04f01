"""Many networks, one knob: plans, sweeps through Ray, one database, comparisons. Imports sizer; dashboards import it."""
