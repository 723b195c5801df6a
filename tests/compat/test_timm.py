"""Contract tests of `compat.timm`."""

from PIL import Image
from support.messages import raises

from hf_mae.compat import timm as compat_timm
from hf_mae.compat.messages import CompatMessage
from hf_mae.compat.timm import check_timm_version, patch_posterize, posterize


def test_an_old_timm_is_rejected(monkeypatch):
    monkeypatch.setattr(compat_timm, "MIN_TIMM_VERSION", "999.0")
    with raises(CompatMessage.TIMM_TOO_OLD, required="999.0"):
        check_timm_version()


def test_only_posterize_of_timm_is_replaced():
    from timm.data import auto_augment, create_transform

    transform = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", color_jitter=None)
    ops = [op for step in transform.transforms for op in getattr(step, "ops", [])]
    before = [op.aug_fn for op in ops]
    assert before.count(auto_augment.posterize) == 1
    patch_posterize(transform)
    after = [op.aug_fn for op in ops]
    assert [new for old, new in zip(before, after) if old is not new] == [posterize]
    image = Image.effect_noise((8, 8), 50).convert("RGB")
    assert posterize(image, 0).getextrema() == ((0, 0),) * 3
    assert posterize(image, 3).tobytes() == auto_augment.posterize(image, 3).tobytes()
    assert posterize(image, 8) is image
