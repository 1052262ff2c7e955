"""init, build, serve, mcp, demo: make a study and open its dashboard, or let an assistant ask."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.api import Study
from engine.cli.arguments import Verbs, add_machine, add_server
from engine.cli.progress import BuildProgress
from engine.cli.trusting import ask_to_trust
from engine.data.templates import EXAMPLES, spec_from_template
from engine.models.hf_folder import allow_downloads
from engine.store import layout
from engine.study.trust import trust_study


def add_verbs(verbs: Verbs) -> None:
    """Register the verbs of this file."""
    init = verbs.add_parser("init", help="write a study.toml to start from")
    init.add_argument("study", type=Path, help="folder to create")
    init.add_argument(
        "--template", default="fashion-mnist", help="template to start from (default: %(default)s)"
    )
    init.add_argument(
        "--data", help="your dataset: a folder, a file, or a name on the Hugging Face hub"
    )
    init.set_defaults(verb=_init)

    build = verbs.add_parser(
        "build", help="compute everything in study.toml, or continue a stopped build"
    )
    build.add_argument("study", type=Path, help="folder of the study")
    add_machine(build)
    build.add_argument(
        "--rebuild",
        metavar="STAGE",
        help="recompute this stage, and any later stage that depends on it",
    )
    build.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on a Ray cluster: HOST:PORT of its head node, or auto; all nodes must share the "
        "study's folder",
    )
    build.set_defaults(verb=_build)

    serve = verbs.add_parser("serve", help="open the dashboard of a study")
    serve.add_argument("study", type=Path, help="folder of the study")
    add_server(serve)
    serve.add_argument(
        "--role",
        choices=("viewer", "editor", "owner"),
        help="what everyone may do on a server without a login (default: owner on this machine "
        "only, else viewer)",
    )
    serve.add_argument(
        "--host",
        action="append",
        default=[],
        help="a further name that the server is reached by, such as that of a proxy",
    )
    serve.set_defaults(verb=_serve)

    mcp = verbs.add_parser(
        "mcp", help="answer an assistant's questions about a study (Model Context Protocol, stdio)"
    )
    mcp.add_argument("study", type=Path, help="folder of the study")
    mcp.set_defaults(verb=_mcp)

    demo = verbs.add_parser(
        "demo", help="build the embedded demo study and open its dashboard while it builds"
    )
    demo.add_argument(
        "study",
        type=Path,
        nargs="?",
        help="folder of the study (default: demo, or demo-EXAMPLE)",
    )
    demo.add_argument(
        "--example",
        choices=EXAMPLES,
        default=next(iter(EXAMPLES)),
        help="what it is about: clothes in classes, emoji with captions, facts in sentences, "
        "or clothes made from noise (default: %(default)s)",
    )
    add_machine(demo)
    add_server(demo)
    demo.set_defaults(verb=_demo)


def _init(options: argparse.Namespace) -> int:
    study = Study.create(options.study, spec_from_template(options.template, options.data))
    trust_study(study)  # whoever wrote `--data python:…`, or took a template, named this code
    print(
        f"Wrote {layout.spec_file(study.root)}. Review it, then run: dataloupe build {study.root}"
    )
    return 0


def _build(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    ask_to_trust(study)
    allow_downloads()
    with BuildProgress(study) as progress:
        study.build(options.device, options.workers, options.rebuild, progress.update, options.ray)
    for line in (*study.dataset.notes, *(f"Warning: {text}" for text in study.dataset.warnings)):
        print(line)
    print(f"Built. To open the dashboard, run: dataloupe serve {study.root}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from engine.running.launch import serve

    study = Study.open(options.study)
    return serve(
        study.root,
        options.address,
        options.port,
        open_browser=not options.no_browser,
        role=options.role,
        hosts=options.host,
    )


def _mcp(options: argparse.Namespace) -> int:
    from engine.running.launch import become_mcp_server

    become_mcp_server(Study.open(options.study).root)


def _demo(options: argparse.Namespace) -> int:
    from engine.cli.demo import demo

    first = options.example == next(iter(EXAMPLES))
    return demo(
        options.study or Path("demo" if first else f"demo-{options.example}"),
        EXAMPLES[options.example],
        device=options.device,
        workers=options.workers,
        address=options.address,
        port=options.port,
        open_browser=not options.no_browser,
    )
