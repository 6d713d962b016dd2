"""Evaluates expression trees at given points, in exact fractions if possible, else to many digits.

Rational arithmetic stays exact. Irrational values are computed with enough digits beyond the range
of sizes in the expression that rounding cannot lose a term: 1 - 2^(-2005) needs more digits than 2
+ 2.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import mpmath

from reasoning.mathematics.reading.trees import Tree, Unreadable

Value = Fraction | mpmath.mpf | mpmath.mpc

# The most digits of a number in an answer, written out; 2^{2006} - 1 is a real answer.
_MAX_DIGITS = 20_000
_MAX_TERMS = 2_000
# Digits that are computed beyond those for the range of sizes.
_GUARD = 80
_BITS_PER_DIGIT = math.log2(10)


class Undefined(ArithmeticError):
    """The expression has no finite value at this point."""


def evaluate(trees: Sequence[Tree], point: Mapping[str, Value]) -> tuple[list[Value], int]:
    """Returns the values of trees at a point, and the number of digits computed.

    Symbols have the values of `point`. A symbol that is neither a constant nor in `point` gets a
    value of its own, the same each time (`point[""]` chooses another). An expression that equals
    only itself, such as f(2), gets one too.

    Raises:
      Undefined: there is a division by zero or the like.
      Unreadable: a number is too large to write out.
    """
    digits, values = _GUARD, []
    for _ in range(3):
        with mpmath.workdps(digits):
            evaluation = _Evaluation(point)
            values = [evaluation.of(tree) for tree in trees]
            # Terms that cancel lose the range once; seeing the smallest term takes it once more.
            needed = int(2 * (evaluation.largest - evaluation.smallest)) + _GUARD
        if needed <= digits or all(isinstance(value, Fraction) for value in values):
            break
        if needed > _MAX_DIGITS:
            raise Unreadable("the sizes of its numbers differ too much")
        digits = needed + 20
    return values, digits


def same_value(one: Value, other: Value, digits: int) -> bool:
    """Says whether two values of one `evaluate` are equal: exactly, or in all reliable digits."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    with mpmath.workdps(digits):
        one, other = _number(one), _number(other)
        return abs(one - other) <= max(abs(one), abs(other)) * _certain()


def ratio(one: Value, other: Value, digits: int) -> Value:
    """Returns the quotient of two values of one `evaluate`; the second is not zero."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one / other
    with mpmath.workdps(digits):
        return _number(one) / _number(other)


def is_real(value: Value) -> bool:
    """Says whether a value lies on the real line."""
    return not isinstance(value, mpmath.mpc) or value.imag == 0


def as_fraction(value: Value) -> Fraction:
    """Returns a real value as a fraction, as exactly as it was computed."""
    if isinstance(value, Fraction):
        return value
    real = value.real
    sign, mantissa, exponent, _ = real._mpf_
    return Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent


def _number(value):
    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


class _Evaluation:
    """One evaluation. It records how large and how small its numbers are.

    Attributes:
      smallest, largest: the decimal exponents of the smallest and the largest number so far.
    """

    def __init__(self, point):
        self.point = dict(point)
        self.smallest, self.largest = 0.0, 0.0

    def of(self, tree):
        value = getattr(self, f"_{tree[0]}")(*tree[1:])
        if not isinstance(value, Fraction) and not mpmath.isfinite(value):
            raise Undefined("not finite")
        if isinstance(value, mpmath.mpc) and value.imag == 0:
            value = value.real
        if tree[0] in ("number", "power", "multiply", "divide") and value != 0:
            size = _size(value)
            if abs(size) > _MAX_DIGITS:
                raise Unreadable("too large a number to write out")
            self.smallest, self.largest = min(self.smallest, size), max(self.largest, size)
        return value

    def numbers(self, trees):
        return [_number(self.of(tree)) for tree in trees]

    def _number(self, value):
        return value

    def _constant(self, name):
        return {"pi": +mpmath.pi, "e": +mpmath.e, "i": mpmath.mpc(0, 1)}[name]

    def _symbol(self, name):
        if name == "infty":
            raise Undefined("infinite")
        if name not in self.point:
            self.point[name] = self._own_value(name, [])
        return self.point[name]

    def _unknown(self, name, arguments):
        return self._own_value(name, [self.of(argument) for argument in arguments])

    def _own_value(self, name, arguments):
        """Returns a number that depends only on the name, the arguments and the point."""
        with mpmath.workdps(30):
            parts = [str(mpmath.nstr(+_number(argument), 20)) for argument in arguments]
        text = "|".join([str(self.point.get("", "")), name, *parts])
        digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
        return Fraction(int.from_bytes(digest, "big") % 9973 + 1009, 4001)

    def _add(self, terms):
        values = [self.of(term) for term in terms]
        if all(isinstance(value, Fraction) for value in values):
            return sum(values, Fraction(0))
        values = [_number(value) for value in values]
        return _snapped(mpmath.fsum(values), max(abs(value) for value in values))

    def _mixed(self, whole, fraction):
        return self.of(whole) + self.of(fraction)

    def _degrees(self, argument):
        return _number(self.of(argument)) * mpmath.pi / 180

    def _negate(self, argument):
        return -self.of(argument)

    def _multiply(self, factors):
        product = Fraction(1)
        for factor in factors:
            value = self.of(factor)
            if isinstance(product, Fraction) and isinstance(value, Fraction):
                product *= value
            else:
                product = _number(product) * _number(value)
        return product

    def _divide(self, top, bottom):
        top, bottom = self.of(top), self.of(bottom)
        if bottom == 0:
            raise Undefined("division by zero")
        if isinstance(top, Fraction) and isinstance(bottom, Fraction):
            return top / bottom
        return _number(top) / _number(bottom)

    def _power(self, base, exponent):
        return self._raise(self.of(base), self.of(exponent))

    def _root(self, argument, degree):
        degree = self.of(degree)
        if degree == 0:
            raise Undefined("a root of degree zero")
        inverse = 1 / degree if isinstance(degree, Fraction) else 1 / _number(degree)
        return self._raise(self.of(argument), inverse)

    def _raise(self, base, exponent):
        if base == 0:
            if not is_real(exponent) or exponent <= 0:
                raise Undefined("a power of zero")
            return Fraction(0)
        growth = abs(_number(exponent)) * max(1, abs(_size(base)))
        if growth > _MAX_DIGITS:
            raise Unreadable("too large a number to write out")
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            if exponent.denominator == 1:
                return base ** int(exponent)
            if exponent.denominator < 100:
                exact = _exact_root(base, exponent.denominator)
                if exact is not None:
                    return exact ** int(exponent.numerator)
        if is_real(base) and base < 0 and isinstance(exponent, Fraction):
            if exponent.denominator % 2:  # an odd root is real, as at school
                sign = -1 if exponent.numerator % 2 else 1
                return sign * mpmath.power(-_number(base), _number(exponent))
            if exponent.denominator == 2:  # a square root is exactly imaginary
                size = mpmath.power(-_number(base), _number(exponent))
                return size * mpmath.mpc(0, 1) ** int(exponent.numerator)
        return mpmath.power(_number(base), _number(exponent))

    def _function(self, name, arguments):
        if name == "factorial":
            return self._factorial(self.of(arguments[0]))
        if name == "binomial":
            return self._binomial(*(self.of(argument) for argument in arguments))
        values = [self.of(argument) for argument in arguments]
        if name == "abs":
            return abs(values[0])
        if name in ("floor", "ceil"):
            return self._rounded(name, values[0])
        if name == "log" and len(values) == 2:
            return self._logarithm(values[0]) / self._nonzero(self._logarithm(values[1]))
        if name == "log":
            # The base may be ten or e, so this logarithm is comparable only with others like it.
            return self._logarithm(values[0]) / self._own_value(r"\log", [])
        if name == "ln":
            return self._logarithm(values[0])
        value = _number(values[0])
        if abs(value) > 10**6:
            raise Unreadable(f"{name} of too large a number")
        if name in ("cot", "sec", "csc"):
            below = {"cot": mpmath.tan, "sec": mpmath.cos, "csc": mpmath.sin}[name](value)
            if name == "cot":
                cosine = _snapped(mpmath.cos(value), 1)
                return cosine / self._nonzero(_snapped(mpmath.sin(value), 1))
            return 1 / self._nonzero(_snapped(below, 1))
        if name == "tan":
            sine = _snapped(mpmath.sin(value), 1)
            return sine / self._nonzero(_snapped(mpmath.cos(value), 1))
        computed = {
            "sin": mpmath.sin, "cos": mpmath.cos, "arcsin": mpmath.asin, "arccos": mpmath.acos,
            "arctan": mpmath.atan, "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh,
            "exp": mpmath.exp,
        }[name](value)  # fmt: skip
        return computed if name == "exp" else _snapped(computed, 1)

    def _logarithm(self, value):
        if value == 0:
            raise Undefined("the logarithm of zero")
        return _snapped(mpmath.log(_number(value)), 1)

    def _nonzero(self, value):
        if value == 0:
            raise Undefined("division by zero")
        return _number(value)

    def _rounded(self, name, value):
        if not is_real(value):
            raise Undefined("no real number to round")
        return Fraction(int((mpmath.floor if name == "floor" else mpmath.ceil)(_number(value))))

    def _factorial(self, value):
        if isinstance(value, Fraction) and value.denominator == 1:
            if value < 0:
                raise Undefined("the factorial of a negative number")
            if value > 5_000:
                raise Unreadable("too large a number to write out")
            return Fraction(math.factorial(int(value)))
        if abs(value) > 1000:
            raise Unreadable("too large a factorial")
        return mpmath.gamma(_number(value) + 1)

    def _binomial(self, top, bottom):
        whole = all(isinstance(n, Fraction) and n.denominator == 1 for n in (top, bottom))
        if whole and 0 <= bottom and 0 <= top:
            if top > 20_000:
                raise Unreadable("too large a number to write out")
            return Fraction(math.comb(int(top), int(bottom)))
        if max(abs(top), abs(bottom)) > 1000:
            raise Unreadable("too large a binomial")
        return mpmath.binomial(_number(top), _number(bottom))

    def _bound(self, name, variable, bounds, body):
        outer = self.point.get(variable)
        try:
            if name in ("sum", "prod") and bounds[1] != ("symbol", "infty"):
                first, last = (self.of(bound) for bound in bounds)
                whole = all(isinstance(n, Fraction) and n.denominator == 1 for n in (first, last))
                if whole and last - first < _MAX_TERMS:
                    return self._series(name, variable, int(first), int(last), body)
            # It equals only itself, so its value is derived from its bounds and its body.
            limits = [b for b in bounds if b not in (("symbol", "infty"), _MINUS_INFINITY)]
            infinite = [str(i) for i, b in enumerate(bounds) if b not in limits]
            samples = [self.of(limit) for limit in limits]
            for sample in (Fraction(17, 23), Fraction(41, 13)):
                self.point[variable] = sample
                samples.append(self.of(body))
            return self._own_value(f"{name}{''.join(infinite)}", samples)
        finally:
            self.point.pop(variable, None)
            if outer is not None:
                self.point[variable] = outer

    def _series(self, name, variable, first, last, body):
        total = Fraction(0) if name == "sum" else Fraction(1)
        for n in range(first, last + 1):
            self.point[variable] = Fraction(n)
            value = self.of(body)
            if isinstance(total, Fraction) and isinstance(value, Fraction):
                total = total + value if name == "sum" else total * value
            else:
                total, value = _number(total), _number(value)
                total = total + value if name == "sum" else total * value
            if abs(_size(total)) > _MAX_DIGITS:
                raise Unreadable("too large a number to write out")
        return total


_MINUS_INFINITY = ("negate", ("symbol", "infty"))


def _certain():
    """Returns the relative size below which a difference is only rounding."""
    return mpmath.mpf(10) ** -(mpmath.mp.dps // 2 + 10)


def _size(value):
    """Returns the approximate decimal exponent of a value; 0 for zero."""
    if value == 0:
        return 0.0
    if isinstance(value, Fraction):
        bits = value.numerator.bit_length() - value.denominator.bit_length()
        return bits / _BITS_PER_DIGIT
    return float(mpmath.mag(value)) / _BITS_PER_DIGIT


def _snapped(value, scale):
    """Returns zero if terms of the size `scale` cancelled to less than the reliable digits."""
    if abs(value) <= scale * _certain():
        return Fraction(0)
    if isinstance(value, mpmath.mpc):
        tiny = abs(value) * _certain()
        if abs(value.imag) <= tiny:
            return value.real
        if abs(value.real) <= tiny:
            return mpmath.mpc(0, value.imag)
    return value


def _exact_root(value, degree):
    """Returns the rational root of a fraction, or None."""
    negative = value < 0
    if negative and degree % 2 == 0:
        return None
    top = _integer_root(abs(value.numerator), degree)
    bottom = _integer_root(value.denominator, degree)
    if top is None or bottom is None:
        return None
    return Fraction(-top if negative else top, bottom)


def _integer_root(number, degree):
    if number.bit_length() > 4000:
        return None
    if degree == 2:
        root = math.isqrt(number)
    else:
        with mpmath.workdps(int(number.bit_length() / 3) + 20):
            root = int(mpmath.nint(mpmath.root(number, degree)))
    return root if root**degree == number else None
