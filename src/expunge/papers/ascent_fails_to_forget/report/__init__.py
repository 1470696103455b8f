"""Tables, figures and the page of the theory and of the proof of forecasts, from their records alone."""
