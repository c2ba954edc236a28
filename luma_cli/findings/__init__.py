"""The benchmark's claims, each tested on the evidence at hand by a rule that is stated before anything is computed."""
