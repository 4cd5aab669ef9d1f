"""Pipeline of open-vocabulary detection, from base boxes and pseudo-labels to a bundle. Start reading here."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipelines.ovd.bundles import (
    GENERATOR,
    StoredRegions,
    build_open_detector,
    load_open_detector,
    save_open_detector,
)
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.data.ovd_coco import published_notes
from pipelines.ovd.data.reading import check_scored_classes, class_split, read_all, read_base, read_scored
from pipelines.ovd.data.vocabulary_split import Split
from pipelines.ovd.demo.demo_data import make_demo_data
from pipelines.ovd.detector import ANYTHING, OpenDetector
from pipelines.ovd.evaluation.overlap import note_seen_images
from pipelines.ovd.evaluation.scores import score_federated, score_groups
from pipelines.ovd.image_text.compact import METHOD as IMAGE_TEXT
from pipelines.ovd.image_text.compact import CompactModel, load_compact, save_compact
from pipelines.ovd.image_text.compact import answer as image_text_answer
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.image_text.training import ContrastiveLearner, ObjectCrops
from pipelines.ovd.learner import OpenLearner, ProposalLearner
from pipelines.ovd.predict import OvdPredictor
from pipelines.ovd.pseudo_labels.label_file import PseudoLabels, read_labels
from pipelines.ovd.pseudo_labels.making import LABELS_FILE
from pipelines.ovd.views import OpenViews
from vision_core.assets import sentence_encoder
from vision_core.bundles.bundle import Tensors, load, read_card
from vision_core.bundles.card import Card, TrainedOn
from vision_core.bundles.export import Exportable
from vision_core.config.loading import fingerprint
from vision_core.console import say
from vision_core.detection.boxes import largest_iou
from vision_core.detection.datasets.readable import Seen, readable
from vision_core.detection.datasets.reading import (
    DetectionDataset,
    content_manifest,
    existing_root,
    manifest,
    read_for_findings,
    refuse_without_boxes,
    shared_images,
)
from vision_core.detection.datasets.validation import SoundImages, check_dataset
from vision_core.detection.evaluation import detect_all, draw_comparison, list_reader
from vision_core.detection.model.detector import LOSS_NAMES, Detector
from vision_core.detection.predictor import DRAWN_SCORE, RESULT_FILES, write_coco
from vision_core.detection.weights.bundles import answer as detector_answer
from vision_core.detection.weights.bundles import load_detector, save_detector
from vision_core.detection.weights.detectron2_checkpoint import detector_on_backbone
from vision_core.detection.weights.export import exportable
from vision_core.errors import Checked, ConfigError, DataError, one_line
from vision_core.evaluation.overlaps import note_overlap
from vision_core.evaluation.rows import Row
from vision_core.files import sha256
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import OnItem, Pipeline
from vision_core.randomness import key, seeded
from vision_core.results import Detections
from vision_core.training.learner import Learner, Prepared
from vision_core.training.loaders import to_device
from vision_core.training.runtime import pick_device

_UNSCORED = (IMAGE_TEXT, GENERATOR)
_REGIONS, _REGION_IMAGES = 512, 128
_FREE_OVERLAP = 0.3  # of a background region with any labelled box or candidate, at most


class OvdPipeline(Pipeline[OvdConfig]):
    """Pipeline of detectors of what words name."""

    can_check = True
    result_files = RESULT_FILES
    curve_names = LOSS_NAMES
    limits = (
        "Detects what names of its training mean, on images like those named here. Typed names that it has never "
        "learned are a guess: training pushes all that is neither labelled nor a pseudo-label towards background."
    )

    def next_command(self, method: str, bundle: str) -> str:
        """Name the next command as every task; generators and image–text models are for pseudo-labels."""
        weights = {GENERATOR: f"proposals.weights={bundle} image_text.weights=IMAGE_TEXT"}
        weights[IMAGE_TEXT] = f"image_text.kind=compact image_text.weights={bundle} proposals.weights=GENERATOR"
        if method not in weights:
            return super().next_command(method, bundle)
        data = "data.root=YOUR_IMAGES 'data.classes=[...]' 'data.novel=[...]'"
        return f"pseudo-label --out labels {data} {weights[method]}"

    def __init__(self) -> None:
        self._seen: Seen = {}  # notes on the files that were found to be sound
        self._views: OpenViews | None = None  # of the run that was prepared last
        self._labels: PseudoLabels | None = None
        self._told: set[str] = set()  # notes: a run is scored again and again on the same list

    def prepare(self, config: OvdConfig) -> Prepared:
        """Build the learner and the training views of a run.

        Raises:
            ConfigError: There is a list to score, and the method trains what has no score.
        """
        if config.method in _UNSCORED and config.data.eval_split:
            raise ConfigError(f"data.eval_split is set, and method={config.method} has no score. Set it to null.")
        if config.method == IMAGE_TEXT:
            return self._image_text(config)
        listed, split = read_base(config.data)
        learner, notes = (
            self._generator(config) if config.method == GENERATOR else self._open_learner(config, listed, split)
        )
        dataset = readable(listed, config.data, self._seen)
        refuse_without_boxes(dataset)
        views = OpenViews(
            _with_targets(dataset, self._labels),
            config.detector,
            candidates=self._labels.by_image if self._labels else None,
            edges_px=config.data.shortest_edges_px,
            strong_view=config.strong_view,
            seed=config.train.seed,
            max_megapixels=config.data.max_megapixels,
        )
        self._views = views
        scored: tuple[str, ...] = ()
        found = read_scored(config.data, split) if config.data.eval_split else None
        if found:
            trained = shared_images(listed, found)
            scored = (*found.notes, *note_overlap("TRAINED ON", trained, len(found), "images"))
        told = (*dataset.notes, *notes, *scored, *published_notes(dataset, found, split))
        self._told.update(told)
        return Prepared(learner=learner, items=views, manifest=_manifest(views), notes=told)

    def _image_text(self, config: OvdConfig) -> Prepared:
        self._labels = self._views = None
        listed, split = read_all(config.data)
        dataset = readable(listed, config.data, self._seen)
        with seeded(key("init", config.train.seed)):
            model = CompactModel(MiniLM.read(sentence_encoder()))
        items = ObjectCrops(
            dataset, model.image_size, seed=config.train.seed, max_megapixels=config.data.max_megapixels
        )
        told = f"{len(items)} objects of {len(split.classes)} classes, those of novel classes too, each cut out."
        return Prepared(
            learner=ContrastiveLearner(model, split.classes),
            items=items,
            manifest=content_manifest(dataset),
            notes=(*dataset.notes, told),
        )

    def _generator(self, config: OvdConfig) -> tuple[Learner, tuple[str, ...]]:
        self._labels = None
        detector, notes = _start(config)
        return ProposalLearner(detector, seed=config.train.seed), notes

    def _open_learner(
        self, config: OvdConfig, dataset: DetectionDataset, split: Split
    ) -> tuple[Learner, tuple[str, ...]]:
        self._labels = read_labels(_labels_file(config), dataset, split)
        regions, notes = _start(config)
        detector = OpenDetector(config.detector, split.classes, self._labels.embeddings, config.classifier)
        detector.load_state_dict(regions.state_dict(), strict=False)  # all but the classifier of names
        found = sum(map(len, self._labels.by_image.values()))
        told = f"{found} candidates of {len(split.novel)} novel classes in {len(self._labels.by_image)} images."
        learner = OpenLearner(detector, split.is_novel, config.marvel, seed=config.train.seed)
        return learner, (told, *notes)

    def deliver(self, config: OvdConfig, learner: Learner, folder: Path) -> Card:
        """Write the detector, the generator or the image–text model as a bundle."""
        data, product = config.data, learner.product()
        seen = "objects of all classes" if isinstance(product, CompactModel) else "boxes of base classes"
        about = data.about or f"{data.format} list '{data.split}' of '{data.root}', {seen}"
        trained_on = TrainedOn(
            description=about,
            synthetic=data.synthetic,
            licence=data.licence,
            manifest=manifest(self._views.dataset) if self._views else None,
        )
        card = self.card(config, config.method, trained_on=trained_on)
        if isinstance(product, CompactModel):
            return save_compact(folder, product, card.model_copy(update={"classes": class_split(data).classes}))
        if not isinstance(product, Detector):
            raise TypeError(f"expected a Detector, got {type(product).__name__}")
        if not isinstance(product, OpenDetector):
            return save_detector(folder, product, card)
        known = self._labels.fingerprint if self._labels else ""
        card = card.model_copy(update={"preprocessing": {"image_text": known}})
        regions = StoredRegions.none(product.classifier.embeddings.shape[1])
        if self._views is not None and isinstance(learner, OpenLearner):
            regions = stored_regions(learner, self._views)
        return save_open_detector(folder, product, card, class_split(data).novel, regions)

    def evaluate(self, config: OvdConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``: AP50 of novel, base and all classes, or as LVIS does."""
        device = pick_device(config.train.device)
        rows = []
        scored: Mapping[str, Path] = {} if config.method in _UNSCORED else bundles
        contents = {model: load_open_detector(path) for model, path in scored.items()}
        check_scored_classes(config.data, {model: each.split for model, each in contents.items()})
        for model, content in contents.items():
            dataset = readable(read_scored(config.data, content.split), config.data, self._seen)
            read = list_reader(config.data)
            found = detect_all(OvdPredictor(content, device, read), dataset, f"evaluate {model}")
            if folder:
                draw_comparison(dataset, {model: found}, folder, read=read)
            notes = note_seen_images(bundles[model], content.card, config.data, dataset)
            rows.append(
                score_federated(model, config.data, dataset, found, notes)
                if config.data.evaluator
                else score_groups(model, dataset, found, content.split, notes)
            )
            for note in dict.fromkeys(rows[-1].notes):
                if note not in self._told:
                    say(one_line(note))
            self._told.update(rows[-1].notes)
        return rows

    def predictor(self, bundle: Path, device: torch.device, config: OvdConfig | None = None) -> OvdPredictor:
        """Load a bundle; a child process decodes files of unknown origin."""
        return OvdPredictor.from_checkpoint(bundle, device, UntrustedImages().noted_image, config)

    def answers(self, bundle: Path, device: torch.device) -> Callable[[Mapping[str, Tensor]], Tensors]:
        """Answer as every task; a generator and an image–text model, which predict nothing, answer by themselves."""
        method = read_card(bundle, OvdConfig.task).method
        if method == IMAGE_TEXT:
            return partial(image_text_answer, load_compact(bundle, MiniLM.read(sentence_encoder())).to(device))
        if method == GENERATOR:
            return partial(detector_answer, load_detector(bundle)[0].to(device))
        return super().answers(bundle, device)

    def follows(self, config: OvdConfig | None) -> Callable[[Path], str]:
        """Make the function that hashes the list of names, which may change under its path."""
        names = config.predict.classes_file if config else None
        if names is None or not names.is_file():
            return super().follows(config)
        return partial(_same_for_all, sha256(names))

    def columns(self, result: Detections) -> dict[str, str | int]:
        """Count the objects above the drawing threshold, in words and by class."""
        counts = Counter(result.classes[label] for label in result.above(DRAWN_SCORE).labels)
        found = ", ".join(f"{counts[name]} {name}" for name in result.classes if counts[name])
        verdict = found or f"no object with a score above {DRAWN_SCORE:g}"
        return {"verdict": verdict, "notice": " ".join(result.notes)}

    def conclude(self, folder: Path, inputs: Sequence[Path]) -> None:
        """Write all detections as one COCO file, which labelling tools open."""
        write_coco(folder, inputs)

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """Build the module and example inputs of an export, for the names of the training."""
        content = load(bundle, OvdConfig.task)
        return exportable(build_open_detector(content, bundle).detector, content, size)

    def demo_data(self, folder: Path) -> str:
        """Write scenes of clothing with pseudo-labels of three novel classes."""
        make_demo_data(folder)
        return (
            "Demo data: scenes composed of 200 photographs of clothing (Fashion-MNIST, Zalando SE, MIT) on an aerial "
            "image. Three of ten classes, the novel ones, are labelled in the validation list alone; their "
            "pseudo-labels are made here, by a generator and an image–text model trained on the spot."
        )

    def validate(self, config: OvdConfig, sample: int | None, on_item: OnItem) -> list[Checked]:
        """Read every image of training and evaluation list once."""
        data = config.data
        split = class_split(data)
        read = read_all if config.method == IMAGE_TEXT else read_base
        train = read_for_findings(data.split, lambda: read(data)[0])
        if config.method not in _UNSCORED and not train.problems:
            train = train.checked(lambda listed: read_labels(_labels_file(config), listed, split))
        lists = [train]
        if data.eval_split:
            lists.append(read_for_findings(data.eval_split, lambda: read_scored(data, split)))
        sound, workers = SoundImages(self.checking.cache), self.checking.workers
        return [
            check_dataset(
                each, sample, max_megapixels=data.max_megapixels, workers=workers, sound=sound, progress=on_item
            )
            for each in lists
        ]


def _same_for_all(digest: str, path: Path) -> str:
    return digest


@torch.no_grad()
def stored_regions(learner: OpenLearner, views: OpenViews) -> StoredRegions:
    """Embed up to 512 background regions, and as many labelled objects, of images spread over the training list.

    A background region is a proposal that touches neither a labelled box nor a candidate that a step would learn now;
    most other candidates are no objects, and what looks like one is the background that matters. Those of an image are
    spread over its proposals from the most to the least object-like.
    """
    detector, was_training = learner.detector, learner.training
    learner.eval()
    width = detector.classifier.embeddings.shape[1]
    count = min(len(views), _REGION_IMAGES)
    share = -(-_REGIONS // max(count, 1))
    background, objects, labels = [torch.zeros(0, width)], [torch.zeros(0, width)], [torch.zeros(0).long()]
    for place in range(count):
        batch = to_device(views[0, place * len(views) // count], detector.pixel_mean.device)
        targets, features = batch.targets[0], detector.features(batch.weak)
        [proposals], [learned] = detector.propose(features), learner.learned_boxes(features, batch)
        free = proposals.boxes[largest_iou(proposals.boxes, learned.boxes) <= _FREE_OVERLAP]
        chosen = free[torch.linspace(0, len(free) - 1, min(share, len(free))).long()]
        base = targets.is_base.nonzero().squeeze(1)[:share]
        boxes = torch.cat([chosen, targets.boxes[base]])
        found = detector.classifier.project(detector.embed(detector.pool(features, [boxes]))).cpu()
        background.append(found[: len(chosen)])
        objects.append(found[len(chosen) :])
        labels.append(targets.labels[base].cpu())
    learner.train(was_training)
    return StoredRegions(
        background=torch.cat(background)[:_REGIONS],
        objects=torch.cat(objects)[:_REGIONS],
        labels=torch.cat(labels)[:_REGIONS],
    )


def _labels_file(config: OvdConfig) -> Path:
    path = config.candidates.file or existing_root(config.data) / LABELS_FILE
    if not path.is_file():
        raise DataError(
            f"There are no pseudo-labels: '{path}' does not exist. Make them with the verb pseudo-label, and give "
            "candidates.file."
        )
    return path


def _with_targets(dataset: DetectionDataset, labels: PseudoLabels | None) -> DetectionDataset:
    """Leave out images with neither a base box nor a candidate."""
    known = labels.by_image if labels else {}
    kept = tuple(each for each in dataset.records if not each.crowd.all() or each.image_id in known)
    left_out = len(dataset) - len(kept)
    notes = [f"images with neither a base box nor a candidate, left out: {left_out}"] if left_out else []
    return replace(dataset, records=kept).noting(*notes)


def _manifest(views: OpenViews) -> str:
    """Hash what a run trains on: images, base boxes, candidates."""
    candidates = [
        [name, each.labels.tolist(), each.boxes.tolist(), each.confidence.tolist()]
        for name, each in sorted(views.candidates.items())
    ]
    return fingerprint([content_manifest(views.dataset), candidates])


def _start(config: OvdConfig) -> tuple[Detector, tuple[str, ...]]:
    """Build the regions of a detector on a backbone: from a file, the shipped one, or random numbers."""
    torch.manual_seed(key("init", config.train.seed))
    weights, settings = config.source.weights, config.detector
    if weights or settings.backbone == "lite0":
        return detector_on_backbone(settings, ANYTHING, weights, key=config.source.weights_key)
    told = f"Backbone: {settings.backbone} from random numbers; set source.weights to start from trained ones."
    return Detector(settings, ANYTHING), (told,)
