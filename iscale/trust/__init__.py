"""How far a run can be believed: tested on spots held out, and against measured truths; command ``evaluate``."""
