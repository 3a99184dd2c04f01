"""What is claimed about speed, measured as ratios of one run. Real data; `make bench` runs it."""
