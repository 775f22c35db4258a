"""A page in the browser to play with the model, to plan from logs, and to judge a schedule."""
