"""*Ascent Fails to Forget* (arXiv 2509.26427): its lemmas and figures, and how well the forecast does."""
