"""What records say beside accuracy: calibration, selective answers, groups of patients, and what goes with falling."""
