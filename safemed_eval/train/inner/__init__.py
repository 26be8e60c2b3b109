"""The inner loop of adversarial training: the adversary, what it maximises, and the mode of the network meanwhile."""
