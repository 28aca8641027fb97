"""Make the models of this folder, and what their own libraries predict: python tests/golden/onnx/make.py.

It needs onnx, scikit-learn and skl2onnx, which the tests do without. ``convolution.onnx`` was exported from
PyTorch; it is part of the tests of the package onnx (Apache-2.0).
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> None:
    """Write the models and ``expected.npz``."""
    import numpy as np
    import onnx
    from onnx.numpy_helper import to_array
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    rows = rng.random((200, 3), "float32")
    classes = np.digitize(rows @ [1, -1, 2], [0, 1]) * 10
    names = np.array(["water", "forest", "city"])[classes // 10]
    shown = rng.random((20, 3), "float32")
    expected = {"rows": shown}
    versions = {"": 17, "ai.onnx.ml": 3}  # which old versions of onnxruntime know
    plain = {"target_opset": versions, "options": {"zipmap": False}}

    forest = RandomForestClassifier(4, max_depth=3, random_state=0).fit(rows, classes)
    expected["classes"], expected["probabilities"] = forest.predict(shown), forest.predict_proba(shown)
    save("forest", to_onnx(forest, rows[:1], **plain))
    logistic = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, names)
    expected["names"] = logistic.predict(shown)
    save("names", to_onnx(logistic, rows[:1], **plain))
    save("zipmap", to_onnx(logistic, rows[:1], target_opset=versions))
    boosted = GradientBoostingRegressor(n_estimators=5, random_state=0).fit(rows, rows[:, 0])
    expected["boosted"] = boosted.predict(shown)
    save("boosted", to_onnx(boosted, rows[:1], target_opset=versions))

    source = Path(onnx.__file__).parent / "backend/test/data/pytorch-converted/test_Conv2d_padding"
    save("convolution", onnx.load(source / "model.onnx"))
    for name in ("input", "output"):
        tensor = onnx.TensorProto.FromString((source / f"test_data_set_0/{name}_0.pb").read_bytes())
        expected[f"convolution_{name}"] = to_array(tensor)
    np.savez_compressed(FOLDER / "expected.npz", **expected)


def save(name: str, model: object) -> None:
    """Write a ModelProto."""
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
