"""What the target `relay` is made of: the state it keeps, when it may send, how it reaches its upstream, what it says there."""
