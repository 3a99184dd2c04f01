"""What people face: the `sizer` command, figures, report, dashboard. Imports studies and sizer; nobody imports it."""
