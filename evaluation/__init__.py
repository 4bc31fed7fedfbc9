"""How good search is: labelled queries against runs, models against each other, and hits against chance."""
