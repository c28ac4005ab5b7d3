"""What a frozen part computes is computed once an image, not once a step."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import timm
import torch
from torch import Tensor

from transferlab.datamodule import Batch, Positions, TransferDataModule
from transferlab.feature_cache import Activations, FeatureCache
from transferlab.fingerprint import fingerprint
from transferlab.forward_graph import NoCutError
from transferlab.frozen_part import Cut, Moving
from transferlab.frozen_pass import BLOCK, computed, require_room
from transferlab.model import TransferModel
from transferlab.phase_plan import PhaseState
from transferlab.records import FORMAT, sha256, sha256_record

PASSES = 1.5
"""Over the training images that a phase has to take at the least; fewer would gain nothing."""

Later = tuple[PhaseState, int]
"""A phase to come, and its optimiser steps at the most."""


class Bank:
    """What leaves the frozen part, for some items.

    Args:
        cut: of the model.
        positions: of the items, each once.
        views: the items' activations, for each of their views.
        items: in the whole dataset.
    """

    def __init__(
        self, cut: Cut, positions: Positions, views: Sequence[Activations], items: int
    ) -> None:
        self.bytes, self._cut, self._maps = sum(view.bytes for view in views), cut, views[0].maps
        self._values = views[0].values
        if len(views) > 1:
            columns = zip(*(view.values for view in views), strict=True)
            self._values = tuple(torch.cat(column) for column in columns)
        self._items, device = len(positions), self._values[0].device
        self._rows = torch.full((items,), -1, dtype=torch.int64)
        self._rows[torch.from_numpy(positions)] = torch.arange(len(positions))
        self._rows = self._rows.to(device)

    def features(self, positions: Tensor, views: Tensor | None = None) -> Tensor:
        """Return the features of (B,) items, each in its view where there are several."""
        rows = self._rows[positions]
        if views is not None:
            rows = rows + views * self._items
        found = (value.index_select(0, rows) for value in self._values)
        pairs = zip(found, self._maps, strict=True)
        return self._cut.after(tuple(v.permute(0, 3, 1, 2) if own else v for v, own in pairs))


class Reuse:
    """Train behind the frozen part of a model on what leaves it.

    Where nothing random happens to the images, or each has a number of fixed views, and what is
    in front of the first trained layer stands still, its activations come again and again. They
    are computed once for every training image when a phase begins, and for every other image when
    it is first asked for. The same pass leaves behind what phases to come are going to need, as
    far as memory goes. The weights end as they would without, to rounding.

    Args:
        data: serves the images.
        batch_size: images of an optimiser step on this rank.
        most_bytes: that may be held in memory.
        cache: shares activations with other runs; without it they are this run's own.

    Attributes:
        why_not: why the whole model runs at every step, where it does.
        multiply_adds: that the frozen part takes for training images, once a phase so far; also
            where an earlier phase or another run has spent them.
    """

    def __init__(
        self,
        data: TransferDataModule,
        batch_size: int,
        most_bytes: float,
        cache: FeatureCache | None = None,
    ) -> None:
        self.data, self.batch_size, self.most_bytes = data, batch_size, most_bytes
        self.cache = cache
        self.why_not: str | None = "no phase has begun"
        self.multiply_adds = 0
        self._cut: Cut | None = None
        self._later: Sequence[PhaseState] = ()
        self._train: Bank | None = None
        self._others: list[tuple[Positions, Bank | None]] = []
        self._ahead: dict[str, Activations] = {}

    def begin(
        self, model: TransferModel, device: torch.device, steps: int, later: Sequence[Later] = ()
    ) -> None:
        """Compute what a phase reuses; what is held of an earlier one is given up.

        Args:
            model: in train mode, as the phase wants it.
            device: where it lies.
            steps: optimiser steps of the phase, at the most.
            later: the phases after it, each with its steps.
        """
        self._forget()
        try:
            self.check(steps)
            self._cut = Cut(model)
            self._later = [state for state, extent in later if self._gains(extent)]
            views = range(self.data.views) if self.data.views else [None]
            positions, left = np.sort(self.data.train), self.most_bytes
            if self._key(self._cut, positions, device, views[0]) not in self._ahead:
                self._ahead = {}  # other phases came than were expected
            held = []
            for view in views:
                held.append(self._activations(positions, device, left, view))
                left -= held[-1].bytes
            self._train = Bank(self._cut, positions, held, len(self.data.store))
            self.multiply_adds += sum(one.multiply_adds for one in held)
            self.why_not = None
        except NoCutError as reason:
            self._forget()
            self.why_not = str(reason)

    def check(self, steps: int) -> None:
        """Find out what of the data makes reuse wrong or useless in a phase of so many steps.

        Raises:
            NoCutError: something does, with the reason.
        """
        if self.data.mixes:
            raise NoCutError("training images are mixed with others")
        if self.data.augmentations and self.data.views is None:
            raise NoCutError(
                "training images are augmented anew at every step; views=4, say, would give "
                "each of them 4 views, for all arms alike"
            )
        if not self._gains(steps):
            raise NoCutError(f"the phase passes over its images less than {PASSES} times")

    def _gains(self, steps: int) -> bool:
        images = len(self.data.train) * (self.data.views or 1)
        return steps * self.batch_size >= PASSES * images

    def training(self, batch: Batch) -> Tensor | None:
        """Return the features of a training batch; None where the whole model has to run."""
        if self._train is None:
            return None
        return self._train.features(batch.positions, batch.views)

    def begin_evaluation(self, model: TransferModel) -> None:
        """Reuse what other runs' evaluations computed, where the whole backbone is frozen.

        Args:
            model: in eval mode; it stays as it is until the evaluation ends.
        """
        self._forget()
        self._ahead = {}
        frozen = not any(p.requires_grad for p in model.backbone.parameters())
        if frozen and self.cache is not None and self.data.trainer:
            self._cut = Cut(model)

    def evaluation(self, batch: Batch, positions: Positions) -> Tensor | None:
        """Return the features of a batch in evaluation; None where the whole model has to run.

        Args:
            batch: of items.
            positions: of all items that are evaluated with it, the same array for all batches.
        """
        if self._cut is None:
            return None
        found = [bank for known, bank in self._others if known is positions]
        if not found:
            found = [self._bank(np.unique(self.data.share_of(positions)), batch.positions.device)]
            self._others.append((positions, found[0]))
        return None if found[0] is None else found[0].features(batch.positions)

    def _forget(self) -> None:
        self._cut, self._later, self._train, self._others = None, (), None, []

    def _bank(self, positions: Positions, device: torch.device) -> Bank | None:
        """Return a bank where there is room for one beside the training images'."""
        assert self._cut is not None
        banks = [self._train, *(bank for _, bank in self._others)]
        taken = sum(bank.bytes for bank in banks if bank is not None)
        left = self.most_bytes - taken - sum(own.bytes for own in self._ahead.values())
        try:
            held = self._activations(positions, device, left)
        except NoCutError:
            return None
        return Bank(self._cut, positions, [held], len(self.data.store))

    def _activations(
        self, positions: Positions, device: torch.device, most: float, view: int | None = None
    ) -> Activations:
        cut = self._cut
        assert cut is not None
        key = self._key(cut, positions, device, view)

        def compute() -> Activations:
            if key in self._ahead:
                return self._ahead[key]
            cuts = [cut, *self._cuts_ahead(cut)]
            images_of = partial(self.data.images, device=device, view=view)
            found = computed(cuts, images_of, positions, most, self._room_ahead())
            for one, made in zip(cuts[1:], found[1:], strict=False):
                self._ahead[self._key(one, positions, device, view)] = made
            return found[0]

        found = compute() if self.cache is None else self.cache.get(key, compute, device)
        self._ahead.pop(key, None)
        require_room(found.bytes, len(positions), most)
        return found

    def _cuts_ahead(self, cut: Cut) -> list[Cut]:
        """Return where the model is cut in later phases, as far as it can be."""
        found: list[Cut] = []
        with suppress(NoCutError):
            for state in self._later:
                found.append(Cut(cut.followed, Moving.then(cut.followed.model, state)))
        return found

    def _room_ahead(self) -> float:
        """Return the bytes an image that all phases together may take, in each of its views."""
        images = len(self.data.train) * (self.data.views or 1) + len(self.data.validation)
        return self.most_bytes / images

    def _key(self, cut: Cut, positions: Positions, device: torch.device, view: int | None) -> str:
        """Name activations by all that they follow from, to the last bit."""
        precision = self.data.trainer.precision_plugin.precision if self.data.trainer else None
        cuda = device.type == "cuda"
        machine = [
            torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability(),
            torch.backends.cuda.matmul.allow_tf32 if cuda else torch.get_num_threads(),
            str(device.type), str(precision), torch.__version__, timm.__version__, FORMAT, BLOCK,
        ]  # fmt: skip
        data = [self.data.store.fingerprint, sha256(positions.tobytes())]
        how = [self.data.preprocessing.fingerprint, self.data.channels_last]
        if view is not None:
            how += [view, self.data.seed, *map(fingerprint, self.data.augmentations)]
        return sha256_record([cut.key, data, how, machine])
