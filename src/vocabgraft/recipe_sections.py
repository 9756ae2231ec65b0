"""The tables of a recipe: what each setting is called, what it may be, and what it stands for.

Each is a frozen pydantic model that refuses unknown keys; `recipe.py` puts them together and reads the files.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from vocabgraft.recipe_data import Positive, Section, Share

BudgetName = Literal["smoke", "demo", "short", "full"]
BUDGETS: tuple[str, ...] = get_args(BudgetName)
Group = Literal["input.old", "input.low", "input.new", "output.old", "output.low", "output.new", "lora"]
Rate = Annotated[float, Field(gt=0, lt=1)]


class Shape(Section):
    """The size of a decoder: what `plan` needs to know before any weight is loaded."""

    hidden: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    intermediate: Positive
    vocabulary: Positive
    """Rows of the embedding matrix."""

    @property
    def attention(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_dim


class Base(Section):
    """The model that learns: where it comes from and on which terms."""

    name: str
    kind: Literal["pypi-gguf", "hub", "folder", "random-gemma3"]
    source: str
    """Python package, `owner/model@revision`, folder, or the seed of a random model."""
    license: str
    license_url: str = ""
    sha256: str | None = None
    """SHA-256 of the file the base is made from, where it is one file."""
    gate: str = ""
    """What a person must do before the weights can be had."""
    tied: bool = True
    shape: Shape


class Tokenizer(Section):
    """Which pieces are added and where they go."""

    method: Literal["continued-bpe", "sentencepiece"] = "continued-bpe"
    """continued-bpe: merges over the base's own segmentation. sentencepiece: a model of its own, then merged in."""
    pieces: Annotated[int, Field(ge=0)]
    """How many; 0: none, the base's own tokenizer stays."""
    min_count: Positive = 2
    """A merge must occur this often in the training text …"""
    per_million: Annotated[float, Field(ge=0)] = 0.0
    """… and this often per million of its words: a floor that grows with the corpus."""
    rare_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """At most this share of the pieces may have fewer than 100 uses; the rest is left out."""
    stop_at_knee: bool = False
    """Take no piece after the knee of the compression curve."""
    cross_word: bool = False
    """Let a piece hold several words (spaces inside). Not for byte-level tokenizers, which cut at spaces first."""
    drop_names: bool = False
    """Korean: leave out names of persons, places and organisations (kiwipiepy)."""
    drop_particles: bool = False
    """Korean: leave out nouns with a particle glued on, such as 환자는 (kiwipiepy)."""
    place: Literal["slots", "append"] = "slots"
    """slots: in placeholders and padded rows that nothing names. append: after all ids, and the matrices grow."""
    reserved_slots: Positive = 99
    """`<unused0>` … below this number stay untouched (MedGemma uses some for its thinking)."""

    @model_validator(mode="after")
    def _cross_word_needs_merges(self) -> Tokenizer:
        if self.cross_word and self.method != "continued-bpe":
            raise ValueError(f"cross_word works with method 'continued-bpe' alone, not {self.method!r}")
        return self


class Init(Section):
    """How the new rows start."""

    method: Literal[
        "random",
        "mean",
        "subword-mean",
        "length-weighted",
        "first-subword",
        "eeve",
        "wechsel",
        "omp",
        "hybrid",
        "distilled",
    ] = "distilled"
    """What a row is a blend of (`embedding/blend.py`); hybrid: subword mean and WECHSEL; distilled: the subword mean,
    then taught by the base; random is a baseline."""
    wechsel_share: Share = 0.1
    """hybrid: weight of the WECHSEL row beside the subword mean, where the vectors support it."""
    norm: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Norm of a new row as a share of its parts' mean norm; 0: as the method gives it."""
    neighbours: Positive = 10
    """Tokens of the other language that a WECHSEL or OMP row is a blend of."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    identical_words: bool = False
    """Take words written alike on both sides (mg, MRI) for pairs of the dictionary."""
    vector_size: Positive = 64
    min_count: Positive = 5
    """A piece seen less often has no static vector worth using."""
    row_untied: bool = False
    """Tied bases: an input and an output value for each new row over the shared old rows; the model that comes out is
    untied and larger by one matrix."""
    tokens: Positive = 4_096
    """distilled: tokens of target text on which the base teaches the rows …"""
    tokens_per_step: Positive = 1_024
    """… and of them in one step."""
    relative_lr: Rate = 0.05
    """distilled: learning rate of the rows, as a share of what a number in the base's rows measures."""
    row_epsilon: Annotated[float, Field(gt=0)] = 1e-3
    """distilled: AdamW's epsilon; larger leaves rows that the text says little of where they are."""
    max_rise: Annotated[float, Field(gt=0)] = 2.0
    """Gate: target bits per byte may be at most this many times the base's before training."""
    max_kl: Annotated[float, Field(gt=0)] = 0.05
    """Gate: nats a token that new rows may take from replay text before training."""
    norm_range: tuple[float, float] = (0.3, 1.7)
    """Gate: least and most norm of a new row, as a share of the base's median."""
    max_copies: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Gate: share of new rows that may equal another new row."""
    max_unused: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Gate: share of pieces that may never occur in the training text."""


class Rates(Section):
    """Learning rates by what they move."""

    new: Rate | None = None
    old: Rate | None = None
    lora: Rate | None = None


class Stage(Section):
    """A training: rows x routes, a token budget, rates. At most seven; a step without one passes on what was learnt."""

    name: str
    train: tuple[Group, ...] = Field(min_length=1)
    tokens: Positive
    lr: Rates
    replay_share: Share = 0.2
    mix: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Shares of sources in the rows of their side, by name, as in `{ laws = 0.5 }`; the others divide the rest."""
    epochs: Positive = 1
    """Passes over hidden states that the first pass keeps (stages that train output rows alone); tokens are of one. For
    new rows a tenth of the steps reads other documents and says which rate and pass were best."""
    sweep: tuple[Rate, ...] = ()
    """Stages of `output.new` alone: rates tried beside lr.new in the same passes; held-out text picks one."""
    pull: Annotated[float, Field(ge=0)] = 0.0
    """With epochs or a sweep of `output.new`: how firmly rows are held where they began."""
    retain: Annotated[float, Field(ge=0)] = 0.0
    """Stages of the body: how firmly hidden states of text without new pieces are held to the base's own."""

    @property
    def cached(self) -> bool:
        """Whether hidden states are computed once and kept."""
        return self.epochs > 1 or bool(self.sweep)

    @model_validator(mode="after")
    def _every_group_has_a_rate(self) -> Stage:
        for group in self.train:
            kind = group.split(".")[-1].replace("low", "lora")
            if getattr(self.lr, kind) is None:
                raise ValueError(f"trains {group!r} but lr.{kind} is not given")
        return self

    @model_validator(mode="after")
    def _old_rows_change_in_one_way(self) -> Stage:
        kinds = {g.split(".")[-1] for g in self.train}
        if {"old", "low"} <= kinds:
            raise ValueError("trains old rows whole (.old) and by few numbers (.low); take one of them")
        return self

    @model_validator(mode="after")
    def _what_is_kept_stands_still(self) -> Stage:
        moving = [g for g in self.train if g not in ("output.new", "output.old")]
        if self.cached and moving:
            raise ValueError(f"epochs, sweep: for output rows alone; training {', '.join(moving)} moves hidden states")
        if (self.sweep or self.pull) and self.train != ("output.new",):
            raise ValueError("sweep, pull: for stages that train output.new alone")
        if self.retain and "lora" not in self.train:
            raise ValueError("retain: without 'lora' the body stands still and there is nothing to hold")
        return self


class Lora(Section):
    """Adapters of the body (stages 6 and 7, instruction tuning), and low-rank changes of old rows (`.low`)."""

    kind: Literal["lora", "rslora", "dora"] = "lora"
    """rslora scales by alpha / sqrt(rank); dora trains each row's length apart."""
    rank: Positive = 16
    alpha: Positive = 32
    body: Literal["nf4", "bf16"] = "nf4"
    """How the frozen body is held while adapters train; they are merged into the full-precision body."""
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Training(Section):
    """What all stages share."""

    seed: int = 1
    window: Positive = 256
    """Tokens per packed row."""
    tokens_per_step: Positive = 2048
    warmup: Share = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    loss: Literal["ours", "torch", "liger", "cce"] = "ours"
    """Kernels of the loss over the vocabulary: the same numbers up to rounding (`training/backends.py`)."""
    row_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """AdamW's epsilon for rows: a gradient well below it (the step's text does not hold the row) moves little."""


class Watch(Section):
    """What is looked at while a stage trains."""

    limit: Annotated[float, Field(gt=0)] | None = None
    """Share by which replay text may get worse than in the base, in bits per byte, before a stage is ended …"""
    every: Positive = 1_000_000
    """… looked at after so many tokens, and at the end …"""
    then: Literal["stop", "roll back"] = "stop"
    """… with an error, or where it was last good."""
    trackers: tuple[Literal["trackio", "wandb"], ...] = ()
    """Where losses are shown besides TensorBoard (`tensorboard/` in the run folder)."""


class Instruct(Section):
    """Instruction tuning on questions and free-text pairs; loss on answers only."""

    questions: tuple[str, ...] = ("samples:questions_ko",)
    instructions: tuple[str, ...] = ("samples:instructions_ko",)
    answers: Literal["given", "by lot"] = "given"
    """by lot: each question is taught with any of its options (a control: format without knowledge)."""
    test_share: Share = 0.5
    """Share of the questions, by hash, kept for evaluation only."""
    non_commercial: bool = False
    """Whether tuning may read benchmarks that forbid commercial use; the model is then bound by their terms."""
    train: tuple[Group, ...] = ("input.new", "output.new", "lora")
    tokens: Positive
    lr: Rates
    replay_share: Share = 0.2
    """Share of packed rows that are plain corpus text of both sides, so that tuning does not undo the stages."""


class Evaluate(Section):
    """What is measured, on what."""

    target_questions: Annotated[tuple[str, ...], Field(min_length=1)] = ("samples:questions_ko",)
    replay_questions: Annotated[tuple[str, ...], Field(min_length=1)] = ("samples:questions_en",)
    window_bytes: Positive = 1024
    """Bits per byte are measured in windows of this many bytes of text, for every tokenizer alike …"""
    context_bytes: Annotated[int, Field(ge=0)] = 0
    """… in 51 and 52 after at most so many bytes of the text before each, which are read and not scored."""
    probe_bytes: Positive = 16_384
    """Held-out bytes per side measured after every stage."""
    final_bytes: Positive = 65_536
    max_questions: Positive = 400
    rotations: Positive = 5
    """Orders of the options in which each question is asked: the given one, then moved on by 1, 2, …"""
    written: Annotated[int, Field(ge=0)] = 0
    """Questions a side that are also answered in writing, and read from what was written."""
    written_form: Literal["chat", "kormedmcqa-2.0", "kormedmcqa-3.0"] = "chat"
    """How those of the target side are asked and read: as a user does, or as that version of lm-eval's task."""
    answer_tokens: Positive = 256
    """At most so many tokens a written answer."""
    margin: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Points of accuracy in the base language that may be lost and still count as kept (95 % interval inside)."""


class Compress(Section):
    """A folder for vLLM beside the GGUF: methods in order, the first that loses little enough ships. [] for none."""

    methods: tuple[Literal["awq", "gptq", "w8a16"], ...] = ()
    """awq and gptq: weights of 4 bits, chosen by calibration text; w8a16: of 8 bits, rounded."""
    max_rise: Annotated[float, Field(gt=0)] = 0.015
    """Gate: share by which bits per byte may rise on either side …"""
    max_accuracy_loss: Annotated[float, Field(ge=0, le=100)] = 1.0
    """… and points of accuracy that may be lost on either side's questions."""
    samples: Positive = 256
    """Calibration texts: tuning pairs in the chat format, and training text of both sides."""
    window: Positive = 512
    """Tokens of a calibration text, at most."""


class Deploy(Section):
    """Formats of the result and the proof that it serves."""

    quantize: Literal["q4_0", "q4_1", "q4_k_m", "q8_0"] = "q4_k_m"
    """Numbers of the small GGUF file; q4_k_m is llama.cpp's mixture of 4 and 6 bits."""
    max_rise: Annotated[float, Field(gt=0)] = 0.05
    """Gate: share by which quantising may raise bits per byte, on either side."""
    question: str
    greedy_prompts: Positive = 20
    compress: Compress = Compress()
