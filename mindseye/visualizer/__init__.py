"""The optimisation: canvas, objective, filters and schedules as plain torch; Lightning on top."""
