"""`hf-mae demo`: a fine-tuned model in the browser."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("demo")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.demo import open_demo
    from .logs import configure_logging

    configure_logging(asked.quiet)
    page = open_demo(**asked.flags)
    print(f"The demo runs at {page.local_url} (Ctrl-C stops it)", flush=True)
    if asked.flags.get("share"):
        print(f"and, for everybody, at {page.share_url}", flush=True)
    page.block_thread()
    return 0
