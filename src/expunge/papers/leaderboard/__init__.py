"""The leaderboard: every method on forget sets of six kinds, judged, and what to use instead of ascent.

Source of the question: "Ascent Fails to Forget" (arXiv 2509.26427), which ends with methods that it names and does not
study.
"""
