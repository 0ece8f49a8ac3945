"""Public parameters that name images: what SSM's GetParameter answers and `resolve:ssm:NAME` means to RunInstances.

Two kinds of names are read, nothing is stored, and so nothing can be put:
- `/minicloud/images/NAME` is the newest available image of that name: the caller's own; if there is none, the newest
  shared with the caller; if there is none, the newest public one. So nobody's public image replaces one's own.
- The names that people's scripts have for AWS's public parameters (`/aws/service/debian/release/12/latest/amd64`). The
  configuration's `image_parameters` says which of the operator's images stands for each, besides ALIASES. A name whose
  image does not exist, or is not visible to the caller, does not exist either.

A parameter's version is the image's time of registration (in microseconds), so a version always means the same image,
whatever is shared or registered later; a version whose image is gone does not exist. There are no labels.

Called by the front door (ssm) and by launch.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from minicloud.cloud.bootstrap import ROOT_ACCOUNT_ID
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.images import may_launch
from minicloud.errors import ApiError
from minicloud.model.resources import Image
from minicloud.model.states import ImageState
from minicloud.store.search import Asked, Found
from minicloud.store.store import Tx

PREFIX = "/minicloud/images/"
RESOLVE = "resolve:ssm:"
MAX_PAGE = 10  # GetParametersByPath
# AWS's names of the usual public images (vendors' pages on their public parameters), and what our images are called.
ALIASES: Mapping[str, str] = {
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64": "amazon-linux-2023",
    "/aws/service/ami-amazon-linux-latest/amzn2-ami-hvm-x86_64-gp2": "amazon-linux-2",
    "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id": "ubuntu-22.04",
    "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id": "ubuntu-24.04",
    "/aws/service/debian/release/12/latest/amd64": "debian-12",
    "/aws/service/debian/release/13/latest/amd64": "debian-13",
}
# SSM user guide, "Creating Systems Manager parameters": what a name may consist of.
_NAME = re.compile(r"[a-zA-Z0-9_.\-/]+")
_SELECTOR = re.compile(r"[a-zA-Z0-9_.\-]{1,100}")


@dataclass(frozen=True, slots=True)
class ImageParameter:
    """A parameter as it was asked for: `selector` is ":VERSION" if a version was named, else empty."""

    name: str
    image: Image
    selector: str = ""

    @property
    def version(self) -> int:
        """The version."""
        return self.image.created_us


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A reference taken apart; `selector` is a version or a label."""

    name: str
    selector: str | None


def get_parameter(cloud: Cloud, caller: Caller, reference: str) -> ImageParameter:
    """Return a parameter by NAME, NAME:VERSION or ARN. Raises ParameterNotFound, ParameterVersionNotFound, and
    ValidationException for what cannot be a name."""
    wanted = _parse(caller, reference)
    return cloud.store.read(lambda tx: _find(cloud, tx, caller, wanted))


def get_parameters(cloud: Cloud, caller: Caller, references: Sequence[str]) -> tuple[list[ImageParameter], list[str]]:
    """Return the parameters that exist, by name, and the references to those that do not. Errors as get_parameter."""
    wanted = {reference: _parse(caller, reference) for reference in references}

    def look(tx: Tx) -> tuple[list[ImageParameter], list[str]]:
        found, absent = [], []
        for reference, one in wanted.items():
            try:
                found.append(_find(cloud, tx, caller, one))
            except ApiError:
                absent.append(reference)
        return sorted(found, key=lambda one: (one.name, one.version)), absent

    return cloud.store.read(look)


def get_parameters_by_path(
    cloud: Cloud, caller: Caller, path: str, recursive: bool, asked: Asked
) -> Found[ImageParameter]:
    """Return a page of the parameters below a path, by name; without `recursive` only those right below it."""
    path = path.strip()
    if not path.startswith("/") or not _NAME.fullmatch(path):
        raise _invalid(
            'The parameter path must begin with "/" and may contain letters, numbers and the symbols .-_/ only.'
        )
    base = path.rstrip("/") + "/"

    def look(tx: Tx) -> list[ImageParameter]:
        found = [ImageParameter(name, image) for name, image in _aliased(cloud, tx, caller)]
        by_name: dict[str, list[Image]] = {}
        for image in tx.images.where(region=caller.region, state=ImageState.AVAILABLE):
            if _NAME.fullmatch(image.name) and may_launch(image, caller):
                by_name.setdefault(PREFIX + image.name, []).append(image)
        found += [ImageParameter(name, _preferred(images, caller)) for name, images in by_name.items()]
        return found

    below = [
        one
        for one in sorted(cloud.store.read(look), key=lambda one: one.name)
        if one.name.startswith(base) and (recursive or "/" not in one.name.removeprefix(base))
    ]
    if asked.after is not None:
        below = [one for one in below if one.name > str(asked.after[0])]
    limit = min(asked.limit or MAX_PAGE, MAX_PAGE)
    return Found(below[:limit], (below[limit - 1].name,) if len(below) > limit else None)


def resolve_image_id(cloud: Cloud, tx: Tx, caller: Caller, image_id: str) -> str:
    """Return the id that an ImageId means: itself, or that of `resolve:ssm:NAME[:VERSION]`.

    Raises SsmInvalidParameter, as EC2 does, for a parameter that does not exist.
    """
    if not image_id.startswith(RESOLVE):
        return image_id
    reference = image_id.removeprefix(RESOLVE)
    try:
        return _find(cloud, tx, caller, _parse(caller, reference)).image.id
    except ApiError:
        raise ApiError("SsmInvalidParameter", f"The following aliases are invalid: {reference[:255]}") from None


def render_arn(caller: Caller, name: str) -> str:
    """Return a public parameter's ARN: no account is in it."""
    return f"arn:aws:ssm:{caller.region}::parameter{name}"


def _parse(caller: Caller, reference: str) -> _Wanted:
    text = reference.strip()
    if text.startswith("arn:"):
        resource = next(
            (
                text.removeprefix(start)
                for account_id in ("", caller.account_id)
                if text.startswith(start := f"arn:aws:ssm:{caller.region}:{account_id}:parameter/")
            ),
            None,
        )
        if resource is None:
            raise _invalid(f"{text[:255]} is not the ARN of a parameter in {caller.region}.")
        text = f"/{resource}"
    name, colon, selector = text.partition(":")
    if not _NAME.fullmatch(name) or (colon and not _SELECTOR.fullmatch(selector)):
        raise _invalid(
            "Parameter names may contain letters, numbers and the symbols .-_/ only, and may be followed by a colon "
            "and a version or label."
        )
    return _Wanted(name, selector if colon else None)


def _find(cloud: Cloud, tx: Tx, caller: Caller, wanted: _Wanted) -> ImageParameter:
    images = _images_of(cloud, tx, caller, wanted.name)
    if not images:
        raise ApiError("ParameterNotFound", f"The parameter {wanted.name[:255]} does not exist.")
    if wanted.selector is None:
        return ImageParameter(wanted.name, _preferred(images, caller))
    same = [image for image in images if str(image.created_us) == wanted.selector]
    if not same:
        raise ApiError(
            "ParameterVersionNotFound",
            f"Systems Manager could not find version {wanted.selector} of {wanted.name[:255]}. "
            "Verify the version and try again.",
        )
    return ImageParameter(wanted.name, _preferred(same, caller), f":{wanted.selector}")


def _images_of(cloud: Cloud, tx: Tx, caller: Caller, name: str) -> list[Image]:
    """Return every image that a version of the parameter may mean."""
    image_name = _aliases(cloud).get(name)
    if image_name is not None:
        return _visible(tx, caller, image_name, ROOT_ACCOUNT_ID)
    if name.startswith(PREFIX):
        return _visible(tx, caller, name.removeprefix(PREFIX))
    return []


def _aliased(cloud: Cloud, tx: Tx, caller: Caller) -> Iterable[tuple[str, Image]]:
    for name, image_name in _aliases(cloud).items():
        images = _visible(tx, caller, image_name, ROOT_ACCOUNT_ID)
        if images:
            yield name, _preferred(images, caller)


def _aliases(cloud: Cloud) -> dict[str, str]:
    return {**ALIASES, **cloud.config.image_parameters}


def _visible(tx: Tx, caller: Caller, name: str, owner: str | None = None) -> list[Image]:
    found = tx.images.where(region=caller.region, state=ImageState.AVAILABLE, name=name)
    return [image for image in found if may_launch(image, caller) and owner in (None, image.account_id)]


def _preferred(images: Sequence[Image], caller: Caller) -> Image:
    def rank(image: Image) -> tuple[bool, bool, int, str]:
        own, shared = image.account_id == caller.account_id, caller.account_id in image.allowed_account_ids
        return own, shared, image.created_us, image.id

    return max(images, key=rank)


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationException", message)
