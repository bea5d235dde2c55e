"""A sweep where the network is: points go up once, labels come down once (torch)."""
