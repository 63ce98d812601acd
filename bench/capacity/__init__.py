"""How much of everything a given load needs, from what was measured; checked against measurement where it fits."""
