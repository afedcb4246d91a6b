"""GGUF files by gguf-py: what one holds, and the same with something changed."""

import dataclasses

import gguf
import numpy

MXFP4 = gguf.GGMLQuantizationType.MXFP4
F32, F16, BF16 = (getattr(gguf.GGMLQuantizationType, name) for name in ("F32", "F16", "BF16"))


@dataclasses.dataclass
class Tensor:
    #: In PyTorch's order.
    shape: tuple
    dtype: gguf.GGMLQuantizationType
    #: As it lies in the file.
    data: numpy.ndarray

    def values(self):
        """Dequantized by gguf-py."""
        return gguf.quants.dequantize(self.data, self.dtype).astype(numpy.float32).reshape(self.shape)


@dataclasses.dataclass
class File:
    tensors: dict
    #: Key to value and type, arrays with the type of their elements.
    metadata: dict

    @classmethod
    def read(cls, path):
        reader = gguf.GGUFReader(path)
        tensors = {}
        for tensor in reader.tensors:
            shape = tuple(int(d) for d in reversed(tensor.shape.tolist()))
            assert tensor.name not in tensors, tensor.name
            tensors[tensor.name] = Tensor(shape, tensor.tensor_type, numpy.array(tensor.data))
        metadata = {
            key: (field.contents(), field.types)
            for key, field in reader.fields.items()
            if not key.startswith("GGUF.")
        }
        return cls(tensors, metadata)

    def write(self, path):
        writer = gguf.GGUFWriter(path, "none")
        writer.kv_data[0].clear()
        for key, (value, types) in self.metadata.items():
            if types[0] == gguf.GGUFValueType.ARRAY:
                writer.add_array(key, value)
            else:
                writer.add_key_value(key, value, types[0])
        for name, tensor in self.tensors.items():
            data = numpy.ascontiguousarray(tensor.data)
            plain = tensor.dtype in (F32, F16)
            # The writer takes rows of bytes for everything that numpy has no type for.
            width = gguf.quant_shape_to_byte_shape(tensor.shape, tensor.dtype) if not plain else tensor.shape
            writer.add_tensor(name, data.reshape(width), raw_dtype=tensor.dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def set(self, key, value):
        types = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.UINT32}
        if isinstance(value, list):
            self.metadata[key] = (value, [gguf.GGUFValueType.ARRAY])
        else:
            self.metadata[key] = (value, [types[type(value)]])

    def convert(self, name, dtype):
        """One tensor in another type."""
        tensor = self.tensors[name]
        data = gguf.quants.quantize(tensor.values(), dtype)
        self.tensors[name] = Tensor(tensor.shape, dtype, data)

    def rename(self, change):
        self.tensors = {change(name): tensor for name, tensor in self.tensors.items()}

    def fold(self, name):
        """A kernel of five dimensions as one of four, without a word about it."""
        tensor = self.tensors[name]
        outer, inner, *rest = tensor.shape
        self.tensors[name] = Tensor((outer * inner, *rest), tensor.dtype, tensor.data)
