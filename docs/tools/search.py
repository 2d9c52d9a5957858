"""Makes a script of the index that `docs/search/main.js` searches: browsers load scripts from files, too."""

from pathlib import Path

from properdocs.config.defaults import ProperDocsConfig


def on_post_build(config: ProperDocsConfig) -> None:
    """Put the index into a script; the theme's worker, which would request it, is not needed."""
    folder = Path(config.site_dir) / "search"
    index = folder / "search_index.json"
    (folder / "index.js").write_text(f"const searchIndex = {index.read_text()};\n")
    index.unlink()
    (folder / "worker.js").unlink()
