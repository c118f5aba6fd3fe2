"""Models that the tests of TensorFlow's formats write, in TensorFlow's own environment: run by its interpreter.

usage: python tensorflow_models.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def write_all(folder: Path) -> None:
    """Write cnn.keras, recurrent.keras, lambda.keras, frozen.pb and the SavedModels sizes/, order/ and flex/."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    keras.utils.set_random_seed(7)
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    hidden = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(image)))
    hidden = layers.SeparableConv2D(12, 3, padding="same")(layers.DepthwiseConv2D(3)(hidden))
    hidden = layers.Activation("gelu")(layers.Add()([hidden, layers.Conv2D(12, 1)(hidden)]) * 2.0 + 1.0)
    pooled = layers.GlobalAveragePooling2D()(hidden)
    scores = layers.Dense(5, activation="softmax", name="scores")(pooled)
    keras.Model(image, [scores, layers.Dense(2, name="boxes")(pooled)]).save(folder / "cnn.keras")
    recurrent = [layers.Bidirectional(layers.LSTM(8, return_sequences=True)), layers.GRU(7), layers.Dense(3)]
    keras.Sequential([keras.Input((12, 6)), *recurrent]).save(folder / "recurrent.keras")
    doubled = layers.Lambda(lambda value: value * 2)
    keras.Sequential([keras.Input((4,)), doubled]).save(folder / "lambda.keras")

    kernel, matrix = tf.random.normal([3, 3, 3, 4], seed=1), tf.random.normal([4, 2], seed=2)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="photo")])
    def classify(photo: tf.Tensor) -> tf.Tensor:
        mixed = tf.nn.relu(tf.nn.conv2d(photo, kernel, 1, "SAME"))
        return tf.nn.softmax(tf.reduce_mean(mixed, [1, 2]) @ matrix)

    frozen = convert_variables_to_constants_v2(classify.get_concrete_function())
    (folder / "frozen.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())

    def save(name: str, body: object, *specs: tf.TensorSpec) -> None:
        module = tf.Module()
        module.body = tf.function(body, input_signature=specs)
        tf.saved_model.save(module, str(folder / name), signatures=module.body)

    wide = tf.TensorSpec([None, 4], tf.float32)
    save(
        "sizes",
        lambda steps: tf.reduce_sum(steps, 1),
        tf.TensorSpec([None, None, 4], tf.float32, name="steps"),
    )
    save("order", lambda z, a: {"z": z * 2, "a": a + 1}, wide, wide)
    save("flex", lambda z: tf.raw_ops.Betainc(a=tf.abs(z) + 1, b=tf.abs(z) + 1, x=tf.sigmoid(z)), wide)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
