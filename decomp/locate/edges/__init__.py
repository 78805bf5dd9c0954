"""Which edges of the network a behaviour rests on."""
