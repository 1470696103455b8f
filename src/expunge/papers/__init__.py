"""One folder a paper: its theory, its studies, their records, figures and tables; nothing else needs them."""
