"""A job: what a project and its options amount to, found out from headers and tables before any work."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from iscale.captures.integrate import integrate
from iscale.captures.read import (
    Readings,
    measured_radius_um,
    place_capture,
    read_aligned_capture,
    release,
    spot_radius_um,
)
from iscale.captures.spots import Capture, TrainingSpots
from iscale.encoders.base import EncoderSpec
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.model.sizes import SIZES
from iscale.options import SETTINGS_FILE, Options
from iscale.plan.workers import Workers, plan_workers
from iscale.project.files import CaptureFiles, ProjectFiles, check_capture_names, find_project, read_gene_names
from iscale.slide.base import file_fingerprint
from iscale.slide.pixel_size import overruled, resolve_pixel_size
from iscale.slide.reader import open_slide
from iscale.store.run_store import RunStore, store_for
from iscale.transform import read_transform

if TYPE_CHECKING:
    from iscale.regions.marker_table import Markers


HoldOut = Literal["capture", "region", "spots"]

IGNORED_OPTIONS = {
    "texture": ("weights", "context", "shifts", "precision"),
    "precomputed": ("weights", "context", "shifts", "precision"),
    "timm": ("context",),
}
"""Options of encoders that do nothing with some of them."""


class Job:
    """A project with its options; everything is read when first asked for, and checked as it is read.

    Parameters
    ----------
    project
        The project folder.
    options
        The options of the run.
    with_captures
        Whether the job uses captures; the stages of the image do not.
    readings
        What others read of the captures' files already.
    """

    def __init__(
        self, project: Path, options: Options, *, with_captures: bool = True, readings: Readings | None = None
    ) -> None:
        # Workers may run in another folder: paths are absolute from here on.
        self.project = project.absolute()
        self.options = options
        self.with_captures = with_captures
        self.notices: list[str] = []
        self.readings = readings or Readings()

    @functools.cached_property
    def files(self) -> ProjectFiles:
        """Files of the project."""
        files = find_project(self.project, self.options.captures, with_captures=self.with_captures)
        if self.with_captures:
            check_capture_names(self.project, self.options.capture, f"{self.project / SETTINGS_FILE}: [capture]: ")
        if files.unaligned and self.options.captures is None:
            left_out = ", ".join(files.unaligned)
            self.notices.append(f"not aligned yet, and not in this plan: {left_out}; a run aligns it first")
        return files

    @functools.cached_property
    def store(self) -> RunStore:
        """Where the output goes."""
        return store_for(self.project, self.options.out)

    @functools.cached_property
    def grid(self) -> SlideGrid:
        """Grids of the mother image."""
        reader = open_slide(self.files.mother_image)
        try:
            shape, stated = reader.levels[0], (reader.pixel_size_um, reader.pixel_size_source)
            bounds, told = reader.bounds, reader.notices
        finally:
            reader.close()
        pixel_size = self.options.pixel_size
        if self.files.mother_is_analysis:
            return SlideGrid(shape, pixel_size, pixel_size)
        written = self.files.pixel_size_raw
        text = (written.read_text(errors="replace").strip(), str(written)) if written else (None, "pixel-size-raw.txt")
        raw, source = resolve_pixel_size(
            stated, text, (self.options.pixel_size_raw, "--pixel-size-raw, or pixel_size_raw in iscale.toml")
        )
        self.notices.append(f"mother image: {shape[1]} x {shape[0]} px of {raw:g} um ({source})")
        self.notices += [f"mother image: {text}" for text in told]
        if against := overruled(stated, (raw, source)):
            self.notices.append(f"mother image: Warning: {against}")
        return SlideGrid(shape, raw, pixel_size, bounds)

    @functools.cached_property
    def slide_fingerprint(self) -> str:
        """Fingerprint of the mother image's file."""
        return file_fingerprint(self.files.mother_image)

    @functools.cached_property
    def captures(self) -> tuple[Capture, ...]:
        """The daughter captures, read and checked against the mother image."""
        captures = tuple(
            self._read_tables(files) if files.transform is None else self._read_measured(files, files.transform)
            for files in self.files.captures
        )
        for capture in captures:
            self.notices += capture.notices
        release()
        return captures

    @property
    def held_bytes(self) -> int:
        """Memory that captures take in the driving process while the job lasts; 0 before they are read."""
        return sum(capture.held_bytes for capture in self.__dict__.get("captures", ()))

    def _read_tables(self, files: CaptureFiles) -> Capture:
        return read_aligned_capture(
            files,
            radius_um=self._radius_um(files),
            pixel_size_um=self.grid.pixel_size_um,
            analysis_shape_px=self.grid.content_shape_px,
            raw_to_analysis=self.grid.scale,
            read=self.readings.matched,
        )

    def _read_measured(self, files: CaptureFiles, transform_file: Path) -> Capture:
        assert files.source is not None
        transform = read_transform(transform_file)
        measured = self.readings.measured(files.source, **self.options.reading(files.name, self.project))
        radius = self._radius_um(files, measured_radius_um(measured, transform, self.grid))
        return place_capture(files, measured, transform, self.grid, radius_um=radius)

    def _radius_um(self, files: CaptureFiles, measured_um: float | None = None) -> float:
        return spot_radius_um(
            self.files,
            files,
            raw_pixel_size_um=None if self.files.mother_is_analysis else self.grid.raw_pixel_size_um,
            pixel_size_um=self.grid.pixel_size_um,
            measured_um=measured_um,
        )

    @functools.cached_property
    def spots(self) -> TrainingSpots:
        """The integrated training spots."""
        named = read_gene_names(self.files.gene_names) if self.files.gene_names else ()
        spots = integrate(
            self.captures,
            n_genes=self.options.n_genes,
            extra_genes=named,
            dist_st_px=self.options.dist_st,
            analysis_shape_px=self.grid.content_shape_px,
            pixel_size_um=self.grid.pixel_size_um,
            normalise=self.options.recipe != "published",
        )
        self.notices += spots.notices
        release()
        return spots

    @functools.cached_property
    def genes(self) -> tuple[str, ...]:
        """The genes of ``run.expression``: those trained on, and all others with ``--materialize all``.

        Raises
        ------
        InputError
            If the recipe gives no other genes than those it trains on, and others are asked for.
        """
        wanted, recipe = self.options.materialize, self.options.recipe
        if wanted != "top" and not SIZES[recipe].factors:
            raise InputError(
                f"--materialize {wanted}: the recipe {recipe!r} keeps nothing that genes could be computed from later.",
                "Use --recipe default; or name more genes to train on with --n-genes.",
            )
        trained = self.spots.genes
        if wanted != "all":
            return trained
        return (*trained, *(gene for gene in self.spots.shared_genes if gene not in set(trained)))

    @functools.cached_property
    def markers(self) -> Markers | None:
        """The user's marker genes, those that the run can tell; None without a ``markers.csv``."""
        from iscale.regions.marker_table import read_markers

        if self.files.markers is None:
            return None
        told = self.spots.shared_genes if SIZES[self.options.recipe].factors else self.genes
        markers = read_markers(self.files.markers, told)
        self.notices += markers.notices
        return markers

    @functools.cached_property
    def test_spots(self) -> TrainingSpots:
        """The spots as they are held out: merged within captures only."""
        from iscale.trust.folds import merge_within_captures

        spots = merge_within_captures(
            self.captures,
            self.spots,
            dist_st_px=self.options.dist_st,
            analysis_shape_px=self.grid.content_shape_px,
            pixel_size_um=self.grid.pixel_size_um,
        )
        release()
        return spots

    @functools.cached_property
    def hold_out(self) -> HoldOut | None:
        """What the model is tested on, trained without it; by default the hardest way that there are spots for.

        Raises
        ------
        InputError
            If the user named a way, and too little would be left to learn from.
        """
        from iscale.trust.folds import cut_folds

        wanted = self.options.hold_out
        if wanted == "none":
            return None
        if wanted == "auto" and self.options.recipe == "published":
            self.notices.append(
                "no gene is held out, as training with the published recipe takes long: "
                "`iscale evaluate PROJECT --hold-out region` does"
            )
            return None
        ways: tuple[HoldOut, ...] = ("capture", "region") if wanted == "auto" else (wanted,)
        for how in ways:
            try:
                cut_folds(self.test_spots, how, seed=self.options.seed)
            except InputError as error:
                if wanted != "auto":
                    raise
                problem = error.problem
            else:
                return how
        self.notices.append(f"no gene is held out: {problem}")
        return None

    @functools.cached_property
    def workers(self) -> Workers:
        """Who works: how many workers, with how much memory each, on what device."""
        return plan_workers(self.options)

    def with_memory(self, memory_bytes: int) -> Job:
        """The same job, all that was read kept, for workers with another budget."""
        other = copy.copy(self)
        vars(other)["workers"] = self.workers.with_memory(memory_bytes)
        return other

    @functools.cached_property
    def encoder(self) -> EncoderSpec:
        """What the encoder is made from; it is made here once, so that what is wrong is told before any work."""
        from iscale.encoders import get_encoder
        from iscale.encoders.base import StoredFeatures

        options = self.options
        name, weights = self._encoder_and_weights()
        spec = EncoderSpec(name, self.workers.device, weights, options.context, options.shifts, options.precision)
        encoder = get_encoder(spec)
        self._tell_unused(name.partition(":")[0])
        self.notices += getattr(encoder, "notices", ())
        if isinstance(encoder, StoredFeatures):
            encoder.check(self.grid)
        return spec

    def _tell_unused(self, family: str) -> None:
        """Say which options of encoders that were set do nothing with this one."""
        ignored = IGNORED_OPTIONS.get(family, ())
        changed = [name for name in ignored if getattr(self.options, name) != Options.model_fields[name].default]
        if changed:
            flags = ", ".join(f"--{name}" for name in changed)
            self.notices.append(f"encoder: {flags} {'have' if len(changed) > 1 else 'has'} no effect with {family}")

    def _encoder_and_weights(self) -> tuple[str, Path | None]:
        """The encoder's name, and its weights: HIPT where ``auto`` finds its weights, else texture, and it says so."""
        from iscale.encoders.weights import find_weights, searched

        wanted = self.options.encoder
        if wanted not in ("auto", "hipt"):
            kind, _, path = wanted.partition("precomputed:")
            name = f"precomputed:{Path(path).expanduser().resolve()}" if path and not kind else wanted
            return name, self.options.weights and self.options.weights.expanduser().resolve()
        weights = find_weights(self.options.weights, self.project)
        places = ", ".join(searched(self.project))
        if weights is not None:
            self.notices.append(f"encoder: hipt, weights in {weights}")
            return "hipt", weights.resolve()
        if wanted == "hipt":
            raise InputError(
                f"--encoder hipt: no weights were found (looked in {places}).",
                "Put vit256_small_dino.pth and vit4k_xs_dino.pth there, or name their folder: --weights DIR.",
            )
        self.notices.append(f"encoder: texture (fixed filters), because no weights of HIPT were found in {places}")
        return "texture", None
