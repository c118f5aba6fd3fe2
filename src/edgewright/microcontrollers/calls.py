"""The calls of the kernels as C: of whole layers, and of chains row by row, with the place of every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.microcontrollers.graph import Graph
from edgewright.microcontrollers.layer import Constant, Layer, integers, render
from edgewright.microcontrollers.planner import Plan
from edgewright.microcontrollers.timeline import Chain

_ROWS = """\
/* Layers row by row: each makes its next row as soon as the rows that it needs are there. `order` tells which one is
 * next; its items from `begin` to before `end` come `times` times.
 */
static void {{ name }}_rows(int8_t *memory, const {{ type }} *order, int32_t count, int32_t begin, int32_t end,
    int32_t times)
{
    int32_t made[{{ cases | length }}] = {0};
    int32_t i;
    for (i = 0; i < count; ++i) {
        const int32_t at = order[i];
        const int32_t y = made[at]++;
        switch (at) {
{% for case in cases %}
{% if not loop.last %}
        case {{ loop.index0 }}:
{% else %}
        default:
{% endif %}
            {{ case }}
            break;
{% endfor %}
        }
        if (i == end - 1 && --times > 0) {
            i = begin - 1;
        }
    }
}
"""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """A sequence in which a part is repeated: `stored`, whose items `begin` to `end` come `times` times."""

    stored: tuple[int, ...]
    begin: int
    end: int
    times: int


class Calls:
    """How the functions of `layers` are called.

    Args:
        name: of the model.
    """

    def __init__(self, graph: Graph, name: str, layers: Sequence[Layer], plan: Plan) -> None:
        self._graph, self._name, self._layers, self._plan = graph, name, layers, plan
        self.functions: dict[str, str] = {}
        for layer in layers:
            if layer.text and layer.text not in self.functions:
                label = f"{name}_{layer.operator.name.lower()}_{layer.operator.position}"
                self.functions[layer.text] = label
        self._chains = {chain.first: chain for chain in plan.chains}

    def lines(self) -> list[str]:
        """Return the calls of a run in their order."""
        lines, at = [], 0
        while at < len(self._layers):
            chain = self._chains.get(at)
            if chain is not None:
                lines.append(self._rows(chain))
                at = chain.last + 1
                continue
            if self._layers[at].text:
                lines.append(self._call(at, self._layers[at].arguments))
            at += 1
        return lines

    def chain_text(self) -> str:
        """Return the function that runs the chains; empty where there are none."""
        if not self._chains:
            return ""
        cases = [self._row_call(at) for at in self._chained]
        return render(_ROWS, {"name": self._name, "type": self._order_type, "cases": cases})

    def chain_tables(self) -> list[Constant]:
        """Return the order of the rows of each chain."""
        return [
            integers(
                _table_name(self._name, chain), self._order_type, self._turns(chain).stored,
                1 if self._order_type == "uint8_t" else 2,
            )
            for chain in self._plan.chains
        ]  # fmt: skip

    def place(self, index: int, *, row: str = "") -> str:
        """Return the pointer to a tensor as C, or to one of its rows."""
        tensor = self._graph.tensor(index)
        if tensor.value is not None:
            return constant_name(self._name, index)
        place = f"memory + {self._plan.offsets[index]}"
        if not row:
            return place
        row_bytes, kept = tensor.size_bytes // tensor.shape[1], self._plan.rings.get(index)
        if kept == 1:
            return place
        return f"{place} + {row if kept is None else f'{row} % {kept}'} * {row_bytes}"

    @property
    def _chained(self) -> list[int]:
        """The layers of all chains."""
        return [at for chain in self._plan.chains for at in range(chain.first, chain.last + 1)]

    @property
    def _order_type(self) -> str:
        return "uint8_t" if len(self._chained) <= 1 << 8 else "uint16_t"

    def _turns(self, chain: Chain) -> Turns:
        number = {at: position for position, at in enumerate(self._chained)}
        return _turns_of([number[at] for at in chain.steps])

    def _rows(self, chain: Chain) -> str:
        """Return the call that runs a chain."""
        turns = self._turns(chain)
        order = _table_name(self._name, chain)
        return f"{self._name}_rows(memory, {order}, {len(turns.stored)}, {turns.begin}, {turns.end}, {turns.times});"

    def _row_call(self, at: int) -> str:
        """Return the call that makes row `y` of layer number `at`."""
        layer = self._layers[at]
        rows = layer.by_rows
        assert rows is not None
        if rows.count:
            return self._call(
                at, (*layer.arguments[:-1], str(rows.count // rows.rows)), in_row="y", out_row="y"
            )
        source = self._graph.tensor(layer.reads[0])
        kept = self._plan.rings.get(source.index, source.shape[1])
        return self._call(at, (*layer.arguments[:-3], "y", "y + 1", str(kept)), out_row="y")

    def _call(self, at: int, arguments: Sequence[str], *, in_row: str = "", out_row: str = "") -> str:
        layer = self._layers[at]
        given = [
            self._cast(index, row=in_row, is_const=not self._graph.tensor(index).is_variable)
            for index in layer.reads
        ]
        given += [self._cast(index, row=out_row, is_const=False) for index in layer.writes]
        if layer.scratch_bytes:
            given.append(f"memory + {self._plan.scratch[at]}")
        return f"{self.functions[layer.text]}({', '.join([*given, *arguments])});"

    def _cast(self, index: int, *, row: str, is_const: bool) -> str:
        tensor = self._graph.tensor(index)
        place = self.place(index, row=row)
        if tensor.c_type == "int8_t" or tensor.value is not None:
            return place
        return f"({'const ' if is_const else ''}{tensor.c_type} *)(void *)({place})"


def constant_name(name: str, index: int) -> str:
    """Return the name of the table that holds the constant tensor `index`."""
    return f"{name}_tensor_{index}"


def _table_name(name: str, chain: Chain) -> str:
    return f"{name}_order_{chain.first}"


def _turns_of(order: Sequence[int]) -> Turns:
    """Return the order of a chain's layers with the part that saves most stored once."""
    best = Turns(stored=tuple(order), begin=0, end=len(order), times=1)
    for period in range(1, len(order) // 2 + 1):
        begin, run = 0, 0
        # The longest run in which every item is the one `period` before.
        longest, ends = 0, 0
        for i in range(period, len(order)):
            run = run + 1 if order[i] == order[i - period] else 0
            if run > longest:
                longest, ends = run, i + 1
        times = longest // period + 1
        saved = (times - 1) * period
        if saved > len(order) - len(best.stored):
            begin = ends - longest - period
            end = begin + period
            stored = (*order[:end], *order[end + saved :])
            best = Turns(stored=stored, begin=begin, end=end, times=times)
    return best
