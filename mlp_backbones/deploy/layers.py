"""The layers of exported files: which are in int8, and what lies around them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MATRICES = {'Conv', 'ConvTranspose', 'Gemm', 'MatMul', 'Convolution', 'GroupConvolution', 'ConvolutionBackpropData'}


def around_the_model(graph: Any) -> list[str]:
    """Return the names of the operations that stay in float: before the first layer and behind the last of each path.

    These are normalization and padding of the image; softmax, label map, decoding and suppression. Of a detector of two
    stages, what makes boxes of the first one's outputs is among them: paths through integers, and through the
    coordinates of RoIAlign, are cut.

    Args:
        graph (nncf.NNCFGraph): Of a model.
    """
    from nncf.common.graph.layer_attributes import Dtype

    after: dict[int, list[int]] = {}
    for edge in graph.get_all_edges():
        aligns = edge.to_node.node_type.lower() == 'roialign' and edge.input_port_id > 0
        if edge.dtype == Dtype.FLOAT and not aligns:
            after.setdefault(edge.from_node.node_id, []).append(edge.to_node.node_id)
    before: dict[int, list[int]] = {}
    for source, targets in after.items():
        for target in targets:
            before.setdefault(target, []).append(source)
    layers = [node.node_id for node in graph.get_all_nodes() if node.node_type in MATRICES]
    fed, feeding = _reached(layers, after), _reached(layers, before)
    inside = (fed & feeding) | set(layers)
    given = _reached([node.node_id for node in graph.get_input_nodes()], _all_edges(graph))
    return [
        node.node_name
        for node in graph.get_all_nodes()
        if node.node_id in given | fed and node.node_id not in inside and not node.node_type.startswith('nncf_model')
    ]


def _all_edges(graph: Any) -> dict[int, list[int]]:
    return {node.node_id: [n.node_id for n in graph.get_next_nodes(node)] for node in graph.get_all_nodes()}


def _reached(starts: Iterable[int], edges: Mapping[int, Sequence[int]]) -> set[int]:
    """Return the nodes at the end of a path from one of ``starts``."""
    found: set[int] = set()
    waiting = [node for start in starts for node in edges.get(start, ())]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(edges.get(node, ()))
    return found


def int8_layers(model: Any) -> dict[str, bool]:
    """Return the layers with weights, by name, and whether these are in int8.

    Args:
        model: As ``load`` or NNCF returned it.
    """
    if hasattr(model, 'graph'):
        weights = {item.name for item in model.graph.initializer}
        made = {output: node for node in model.graph.node for output in node.output}

        def of_weights(name: str) -> bool:
            node = made.get(name)
            return name in weights if node is None else bool(node.input) and of_weights(node.input[0])

        layers = {}
        for node in model.graph.node:
            if node.op_type in MATRICES and (inputs := [name for name in node.input[:2] if of_weights(name)]):
                layers[node.name] = any(name in made and made[name].op_type == 'DequantizeLinear' for name in inputs)
        return layers
    return {
        op.get_friendly_name(): any(kinds & {'i8', 'u8'} for kinds in found)
        for op in model.get_ordered_ops()
        if op.get_type_name() in MATRICES and (found := [k for i in (0, 1) if (k := _constants(op.input_value(i)))])
    }


def _constants(output: Any) -> set[str]:
    """Return the element type of the constant that a value of OpenVINO's is made of, and 'u8' where it is quantized."""
    op = output.get_node()
    kind = op.get_type_name()
    if kind == 'Constant':
        return {output.get_element_type().get_type_name()}
    if kind not in ('Convert', 'FakeQuantize', 'Multiply', 'Reshape', 'Subtract', 'Transpose', 'Unsqueeze'):
        return set()
    found = _constants(op.input_value(0))
    return found | {'u8'} if found and kind == 'FakeQuantize' else found


def products_of_batches(model: Any) -> list[str]:
    """Return the names of an ONNX model's products with a batch of weight matrices, such as the tiles of RepMLP.

    ONNX Runtime 1.32 stops at them in int8 where weights have a scale for each channel ("b zero point is not valid").
    """
    matrices = {item.name for item in model.graph.initializer if len(item.dims) == 2}
    layers = int8_layers(model)
    products = (node for node in model.graph.node if node.op_type == 'MatMul' and node.name in layers)
    return [node.name for node in products if not matrices & set(node.input)]


def layers_report(final: Mapping[str, bool], plain: Mapping[str, bool]) -> dict[str, Any]:
    """Return how many layers are in int8, and which are in float and why."""
    why = 'in int8 too much accuracy was lost', 'NNCF or the engine has no int8 form of it'
    floats = [dict(name=name, reason=why[0] if plain.get(name) else why[1]) for name, int8 in final.items() if not int8]
    return dict(int8=sum(final.values()), float=floats)
