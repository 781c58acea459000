"""How right a model is: counts of right answers, and what they say with what certainty."""
