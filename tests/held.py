"""Bytes of the tensors that are alive at once, counted exactly: the allocator's noise has no part in it."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class BytesHeld(TorchDispatchMode):
    """While this is open: the bytes of all storages that operations made, now and at most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf):
                self.count(leaf.untyped_storage(), given)
        return result

    def count(self, storage, given):
        """Count a storage from now on until it is freed, unless an operation was given it."""
        place, size = storage.data_ptr(), storage.nbytes()
        if place in given or place in self.known or size == 0:
            return
        self.known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.forget, place, size)

    def forget(self, place, size):
        self.known.discard(place)
        self.now -= size
