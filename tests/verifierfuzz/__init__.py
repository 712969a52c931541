"""Bad input for the verifier and the gate: objects of the shipped programs with bytes changed, and programs built to
explode."""
