"""The image builder apart from its recipes: cache, lock, cleaning up, tables on disk."""

import importlib.machinery
import importlib.util
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

IMAGES = Path(__file__).resolve().parents[3] / "images"


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """images/build as a module, working on a folder with one recipe, `sample`."""
    recipe = tmp_path / "images" / "sample" / "recipe.py"
    recipe.parent.mkdir(parents=True)
    (tmp_path / "images" / "build").write_text("")
    (tmp_path / "images" / "imagebuild").mkdir()
    recipe.write_text(
        "NEEDED_PROGRAMS = {'sh': 'dash'}\n"
        "def build(work, output, progress):\n"
        "    (work / 'left-over').write_text('x')\n"
        "    output.write_text('image')\n"
    )
    monkeypatch.syspath_prepend(str(IMAGES))
    monkeypatch.syspath_prepend(str(tmp_path / "images"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = importlib.machinery.SourceFileLoader("image_builder", str(IMAGES / "build"))
    spec = importlib.util.spec_from_loader("image_builder", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "IMAGES_DIR", tmp_path / "images")
    yield module
    for name in [name for name in sys.modules if name.split(".")[0] in ("imagebuild", "sample")]:
        del sys.modules[name]


def test_an_image_is_built_once_per_recipe(builder: ModuleType, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = builder.build("sample", None, cache)
    assert first.read_text() == "image"
    assert sorted(path.name for path in cache.iterdir()) == [".sample.lock", first.name]
    first.write_text("from the cache")
    copy = builder.build("sample", tmp_path / "out" / "copy.qcow2", cache)
    assert copy.read_text() == "from the cache"

    (tmp_path / "images" / "sample" / "extra").write_text("a change of the recipe")
    assert builder.build("sample", None, cache) != first


def test_a_failed_build_leaves_nothing(builder: ModuleType, tmp_path: Path) -> None:
    recipe = tmp_path / "images" / "sample" / "recipe.py"
    recipe.write_text(recipe.read_text() + "    raise RuntimeError('no')\n")
    with pytest.raises(RuntimeError, match="no"):
        builder.build("sample", None, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".sample.lock"]


def test_missing_programs_are_named_by_their_package(builder: ModuleType, tmp_path: Path) -> None:
    recipe = tmp_path / "images" / "sample" / "recipe.py"
    recipe.write_text("NEEDED_PROGRAMS = {'no-such-program': 'its-package', '/no/such/file': 'another-package'}\n")
    with pytest.raises(builder.BuildError, match="apt-get install another-package its-package"):
        builder.build("sample", None, tmp_path / "cache")


def test_the_second_of_two_builders_waits_and_takes_the_first_ones_image(builder: ModuleType, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    built: list[Path] = []
    with builder.store.exclusive(cache / ".sample.lock"):
        second = threading.Thread(target=lambda: built.append(builder.build("sample", None, cache)))
        second.start()
        digest = builder.store.recipe_hash(tmp_path / "images", "sample")
        (cache / f"sample-{digest}.qcow2").write_text("the first one's")
    second.join(180)
    assert built[0].read_text() == "the first one's"


def test_the_command_refuses_an_unknown_image() -> None:
    done = subprocess.run([sys.executable, str(IMAGES / "build"), "nonsense"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"debian" in done.stderr
    assert b"tiny" in done.stderr


def test_default_cache_follows_the_xdg_specification(builder: ModuleType) -> None:
    default = builder.store.default_cache_dir
    assert default({}, Path("/home/u")) == Path("/home/u/.cache/minicloud/images")
    assert default({"XDG_CACHE_HOME": "/var/c"}, Path("/home/u")) == Path("/var/c/minicloud/images")
    assert default({"XDG_CACHE_HOME": "relative"}, Path("/home/u")) == Path("/home/u/.cache/minicloud/images")


def test_gpt_has_two_copies_with_right_checksums(builder: ModuleType, tmp_path: Path) -> None:
    disk = importlib.import_module("imagebuild.disk")
    image = tmp_path / "disk.raw"
    image.write_bytes(b"\0" * 4 * disk.MIB)
    partition = disk.GptPartition(14, disk.GPT_BIOS_BOOT, "deb1a400-0000-4000-8000-00000000000e", 2048, 4095)
    disk.write_gpt(image, b"\x90" * 440, "deb1a400-0000-4000-8000-0000000000ff", [partition])
    content = image.read_bytes()
    last = len(content) // 512 - 1
    for here, other, table in ((1, last, 2), (last, 1, last - 32)):
        header = content[here * 512 : here * 512 + 92]
        signature, _, _, checksum, _, my_sector, other_sector = struct.unpack("<8sIIIIQQ", header[:40])
        assert (signature, my_sector, other_sector) == (b"EFI PART", here, other)
        assert checksum == zlib.crc32(header[:16] + b"\0\0\0\0" + header[20:])
        assert struct.unpack("<Q", header[72:80]) == (table,)
        entries = content[table * 512 : table * 512 + 128 * 128]
        assert struct.unpack("<I", header[88:92]) == (zlib.crc32(entries),)
        assert struct.unpack("<QQ", entries[13 * 128 + 32 : 13 * 128 + 48]) == (2048, 4095)
    assert content[510:512] == b"\x55\xaa"
    assert content[450] == 0xEE


def test_initramfs_archive_is_read_back_by_cpio(builder: ModuleType, tmp_path: Path) -> None:
    disk = importlib.import_module("imagebuild.disk")
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "tool").write_bytes(b"odd")
    (tree / "bin" / "tool").chmod(0o755)
    (tree / "link").symlink_to("bin/tool")
    archive = disk.render_cpio(tree, 1704067200)
    (tmp_path / "out").mkdir()
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=tmp_path / "out", check=True)
    assert (tmp_path / "out" / "link").read_bytes() == b"odd"
    assert (tmp_path / "out" / "bin" / "tool").stat().st_mode & 0o777 == 0o755
