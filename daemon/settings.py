"""Every setting of the daemon, declared once: its type, bounds, unit, default and the reason for the default.

The file `forecastd.toml`, the `FORECASTD_RUN_*` environment, the flags of `forecastd run`, `forecastd config` and
`docs/configuration.md` are all made from these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of what the daemon takes in; what is beyond them is refused and counted."""

    series: Annotated[int, Meta(ge=1, description="Series in all. A row of state is about 10 KB.")] = 100_000
    series_per_producer: Annotated[
        int, Meta(ge=1, description="Series that one producer may bring; those without a name are one producer.")
    ] = 20_000
    producers: Annotated[
        int,
        Meta(ge=1, description="Producers that number their samples; those without a name are forgotten first."),
    ] = 10_000
    connections: Annotated[
        int, Meta(ge=1, description="Connections of producers and subscribers; nobody more is let in until some end.")
    ] = 1_000
    name_bytes: Annotated[int, Meta(ge=1, le=1024, description="Bytes of a series' name.")] = 200
    frame_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="Bytes of one frame; a larger one is refused, one of `frames` times this ends its connection.",
        ),
    ] = 1 << 20
    frames: Annotated[int, Meta(ge=2, description="Frames of one message.")] = 16
    batch_samples: Annotated[
        int, Meta(ge=1, description="Samples taken into one step, so that a busy stream still publishes often.")
    ] = 20_000
    future_s: Annotated[
        float, Meta(gt=0, description="Seconds a sample's time may lie ahead of the daemon's clock.")
    ] = 600.0
    silent_s: Annotated[
        float, Meta(gt=0, description="Seconds of silence after which a series leaves the metrics and the page.")
    ] = 3600.0
    series_shown: Annotated[int, Meta(ge=0, description="Series on the metrics page; the rest is counted there.")] = (
        1_000
    )
    journal_bytes: Annotated[
        int, Meta(ge=1 << 20, description="Bytes of the journal; older samples go first, never what recovery needs.")
    ] = 1 << 30
    journal_s: Annotated[float, Meta(gt=0, description="Seconds the journal reaches back.")] = 7 * 86400.0
    bridge_steps: Annotated[
        int,
        Meta(ge=0, le=1000, description="Missed steps bridged with forecasts; a longer gap warms the series up again."),
    ] = 10


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the RNN learns while it serves; the bounds keep it cheap."""

    every_samples: Annotated[
        int, Meta(ge=8, description="New samples of a series after which its copy is tuned again.")
    ] = 64
    every_s: Annotated[
        float, Meta(ge=0, description="Seconds after which it is tuned again with fewer than that; 0 for never.")
    ] = 0.0
    cooldown_s: Annotated[
        float, Meta(ge=0, description="Seconds between two fine-tunes of a copy, whatever asks for the second.")
    ] = 5.0
    copies: Annotated[
        int, Meta(ge=0, le=100_000, description="Series that may have a copy of the model of their own, 42 KB each.")
    ] = 256
    series: Annotated[
        int, Meta(ge=1, le=100_000, description="Series whose newest 2,200 samples the trainer keeps, 80 KB each.")
    ] = 1024
    challenge_s: Annotated[
        float, Meta(ge=0, description="Seconds between two challengers of the shared model; 0 for never.")
    ] = 3600.0
    cpu_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of one processor core that the trainer may use on average.")
    ] = 0.5
    budget_s_day: Annotated[
        float, Meta(gt=0, description="Seconds of processor time that the trainer may use in a day.")
    ] = 43_200.0
    timeout_s: Annotated[
        float,
        Meta(ge=1, description="Seconds after which a fine-tune is given up; the first includes TensorFlow's start."),
    ] = 60.0


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A shared model for some of the series: a table `[[model]]` of the file."""

    match: Annotated[
        str, Meta(min_length=1, description="Names of series: * stands for anything, ? for one character.")
    ]
    model: Annotated[str, Meta(min_length=1, description="Their model: a name, or a file.")]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `forecastd run` can be told."""

    ingest: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Where samples arrive: [router+|pull+|sub+]ENDPOINT.")
    ] = ("router+tcp://127.0.0.1:5555",)
    publish: Annotated[str, Meta(description="Where forecasts leave (XPUB).")] = "tcp://127.0.0.1:5556"
    web: Annotated[str, Meta(description="HOST:PORT of the metrics, the API and the live page; empty for none.")] = (
        "127.0.0.1:9595"
    )
    web_token: Annotated[
        str, Meta(description="File of the token that the page, the metrics and the API ask for; empty: they ask none.")
    ] = ""
    web_certificate: Annotated[
        str, Meta(description="File of the certificate (PEM, with its chain) to serve the page by HTTPS.")
    ] = ""
    web_key: Annotated[str, Meta(description="File of the certificate's private key (PEM).")] = ""
    web_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Names the page may be asked for by, besides this machine's own; *.example.org for all below."
        ),
    ] = ()
    key: Annotated[
        str,
        Meta(description="File of the daemon's CURVE key (`forecastd keys new`); empty: whoever connects is let in."),
    ] = ""
    clients: Annotated[
        str, Meta(description="File, or folder of *.toml, of the public keys that are let in, and what each may do.")
    ] = ""
    insecure: Annotated[
        bool, Meta(description="Listen beyond this machine although nobody is asked for a key or a token.")
    ] = False
    state: Annotated[str, Meta(description="Folder of the journal and the models.")] = "forecastd-state"
    ephemeral: Annotated[bool, Meta(description="Keep no state: nothing is written, nothing survives a restart.")] = (
        False
    )
    acks: Annotated[
        Literal["durable", "accepted"],
        Meta(description="When a numbered sample is acknowledged: once the disk has it, or once it is admitted."),
    ] = "durable"
    horizon: Annotated[int, Meta(ge=1, le=64, description="Steps ahead to forecast.")] = 1
    level: Annotated[
        float, Meta(gt=0.0, lt=1.0, description="Level of the published interval: 0.9 covers nine in ten.")
    ] = 0.9
    levels: Annotated[
        tuple[Annotated[float, Meta(gt=0.0, lt=1.0)], ...],
        Meta(max_length=8, description="Further levels, kept and shown besides the published one."),
    ] = (0.8, 0.95)
    model: Annotated[str, Meta(description="The shared model: the name of a shipped or stored one, or a file.")] = (
        "general"
    )
    #: the tables `[[model]]`; the first whose pattern a series' name matches counts
    models: Annotated[tuple[Group, ...], Meta(max_length=32)] = ()
    experts: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Experts that take part in the blend; one that is off costs nothing."),
    ] = ("naive", "ses", "ar2", "ar10", "ar", "rnn", "path", "seasonal")
    alarm_rate: Annotated[
        float,
        Meta(gt=0.0, lt=0.02, description="False alarms to accept: 0.001 flags one ordinary sample in a thousand."),
    ] = 0.001
    alarm_direction: Annotated[
        Literal["both", "up", "down"],
        Meta(description="Whether only samples above their forecast may be flagged (up), only those below, or both."),
    ] = "both"
    alarm_deviation: Annotated[
        float,
        Meta(ge=0.0, description="How far off its forecast a sample must be to be a spike, in units of the value."),
    ] = 0.0
    alarm_share: Annotated[
        float, Meta(ge=0.0, description="The same as a share of the forecast; the larger of the two counts.")
    ] = 0.0
    finetune: Annotated[
        bool, Meta(description="Fine-tune the model on what arrives: a copy for each series that gains by it.")
    ] = True
    learning: Learning = Learning()
    limits: Limits = Limits()
