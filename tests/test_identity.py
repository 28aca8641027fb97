"""Content hashes of functions, models and other objects."""

import dataclasses
import functools
import os
import subprocess
import sys
import types

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from xee_tf import Model
from xee_tf.identity import content_hash

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def function_of(source, name="f", **names):
    """Create a function of a module ``__main__``, as in a script or a notebook."""
    module = types.ModuleType("__main__")
    module.__dict__.update(names)
    exec(compile(source, f"<cell {np.random.default_rng().integers(1 << 40)}>", "exec"), module.__dict__)
    return getattr(module, name)


def content(function, **options):
    return Model.from_function(function, input_tile_size=8, **options).connector.content()


@given(values)
def test_copies_have_the_same_hash(value):
    assert content_hash(value) is not None
    assert content_hash(cloudpickle.loads(cloudpickle.dumps(value))) == content_hash(value)


@given(values, values)
def test_different_values_have_different_hashes(one, two):
    if repr(one) != repr(two):
        assert content_hash(one) != content_hash(two)


EQUIVALENT = [
    ("f = lambda b: 2 * b", "# another line\n\n\nf = lambda b: 2 * b  # a remark"),
    ("K = 2\ndef f(b): return K * b", "K = 1 + 1\nU = 5\ndef f(b): return K * b"),
    (
        "cache = None\ndef f(b):\n    global cache\n    cache = cache or 1\n    return b * cache",
        "cache = 1\ndef f(b):\n    global cache\n    cache = cache or 1\n    return b * cache",
    ),
]
DIFFERENT = [
    ("f = lambda b: 2 * b", "f = lambda b: 3 * b"),
    ("f = lambda b: 2 * b", "f = lambda b: 2 + b"),
    ("f = lambda b: 2 * b", "f = lambda b: 2.0 * b"),
    ("f = lambda b, k=1: k * b", "f = lambda b, k=2: k * b"),
    ("f = lambda b, *, k=1: k * b", "f = lambda b, *, k=2: k * b"),
    ("K = 2\ndef f(b): return K * b", "K = 3\ndef f(b): return K * b"),
    ("import numpy as np\nf = lambda b: np.sin(b)", "import numpy as np\nf = lambda b: np.cos(b)"),
    ("def g(b): return b\ndef f(b): return g(b)", "def g(b): return -b\ndef f(b): return g(b)"),
    ("def f(b): return (lambda q: q + 1)(b)", "def f(b): return (lambda q: q + 2)(b)"),
    ("def f(b): return b if 'x' in {'x', 'y'} else 0", "def f(b): return b if 'x' in {'x', 'z'} else 0"),
    (
        "def make(k):\n    return lambda b: k * b\nf = make(2)",
        "def make(k):\n    return lambda b: k * b\nf = make(3)",
    ),
    (
        "class C:\n    k = 1\n    def __call__(self, b): return b * self.k\nf = C()",
        "class C:\n    k = 2\n    def __call__(self, b): return b * self.k\nf = C()",
    ),
    (
        "class C:\n    def __call__(self, b): return b\nf = C()",
        "class C:\n    def __call__(self, b): return -b\nf = C()",
    ),
    (
        "from functools import partial\ndef g(k, b): return k * b\nf = partial(g, 1)",
        "from functools import partial\ndef g(k, b): return k * b\nf = partial(g, 2)",
    ),
    (
        "import numpy as np\nW = np.arange(3)\nf = lambda b: b @ W",
        "import numpy as np\nW = np.arange(3) + 1\nf = lambda b: b @ W",
    ),
    (
        "import numpy as np\nW = np.arange(3)\nf = lambda b: b @ W",
        "import numpy as np\nW = np.arange(3.0)\nf = lambda b: b @ W",
    ),
]


@pytest.mark.parametrize(("one", "two"), EQUIVALENT)
def test_equivalent_functions(one, two):
    assert content(function_of(one)) == content(function_of(two))


@pytest.mark.parametrize(("one", "two"), DIFFERENT)
def test_different_functions(one, two):
    assert content(function_of(one)) == content(function_of(one))
    assert content(function_of(one)) != content(function_of(two))


# Source code of a function, and of one that is the same or different, by what differs.
NO_CHANGE = {
    "docstring": (
        "def f(b):\n    return None if b is None else b*2",
        'def f(b):\n    "doc"\n    # c\n    return None if b is None else b*2',
    ),
    "docstring in class": (
        "class C:\n    def __call__(s,b): return b\nf=C()",
        "class C:\n    'doc'\n    def __call__(s,b):\n        'x'\n        return b\nf=C()",
    ),
    "annotations": (
        "def f(b): return b",
        "def f(b: int) -> int: return b",
    ),
    "layout and remarks in try": (
        "def f(b):\n    try: b = b + 1; b = b * 2\n    except ValueError: pass\n    finally: b = 3\n"
        "    return b",
        "def f(b):\n    'doc'\n\n    try:\n        # c\n        b = (\n            b + 1\n        )\n\n"
        "        b = b * 2\n    # d\n    except ValueError:\n\n        pass\n    finally:\n"
        "        b = 3\n\n    return b",
    ),
    "layout of keywords": (
        "def f(b): return sorted(b, key=len, reverse=True)",
        "def f(b):\n    return sorted(  # c\n        b,\n        key=len,\n        reverse=True,\n    )",
    ),
    "list of an outer function": (
        "def mk(n):\n    seen=[0]*n\n    def f(b):\n        def g(): seen.append(1)\n"
        "        g(); return b\n    return f\nf=mk(0)",
        "def mk(n):\n    seen=[0]*n\n    def f(b):\n        def g(): seen.append(1)\n"
        "        g(); return b\n    return f\nf=mk(3)",
    ),
    "log list": (
        "calls=[]\ndef f(b):\n    calls.append(1)\n    return b",
        "calls=[1,2]\ndef f(b):\n    calls.append(1)\n    return b",
    ),
    "log dict": (
        "c={'n':0}\ndef f(b):\n    c['n'] += 1\n    return b",
        "c={'n':7}\ndef f(b):\n    c['n'] += 1\n    return b",
    ),
    "nonlocal": (
        "def mk(n):\n"
        "    def f(b):\n"
        "        nonlocal n\n"
        "        n += 1\n"
        "        return b\n"
        "    return f\n"
        "f=mk(0)",
        "def mk(n):\n"
        "    def f(b):\n"
        "        nonlocal n\n"
        "        n += 1\n"
        "        return b\n"
        "    return f\n"
        "f=mk(5)",
    ),
    "self counter": (
        "class C:\n"
        "    def __init__(s,n): s.n=n; s.log=[1]*n\n"
        "    def __call__(s,b):\n"
        "        s.n += 1; s.log.append(1)\n"
        "        return b\n"
        "f=C(0)",
        "class C:\n"
        "    def __init__(s,n): s.n=n; s.log=[1]*n\n"
        "    def __call__(s,b):\n"
        "        s.n += 1; s.log.append(1)\n"
        "        return b\n"
        "f=C(3)",
    ),
    "dict of an object": (
        "class C:\n    def __call__(s,b):\n        s.seen[0] = b\n        return b\nf=C(); f.seen={}",
        "class C:\n    def __call__(s,b):\n        s.seen[0] = b\n        return b\nf=C(); f.seen={0: 5}",
    ),
    "lock": (
        "import threading\nL=threading.Lock()\ndef f(b):\n    with L: return b",
        "import threading\nL=threading.Lock()\ndef f(b):\n    with L: return b",
    ),
    "itertools.count": (
        "import itertools\nI=itertools.count()\ndef f(b):\n    next(I)\n    return b",
        "import itertools\nI=itertools.count(4)\ndef f(b):\n    next(I)\n    return b",
    ),
}
CHANGE = {
    "keyword of a call": (
        "def g(b, low=0, high=9): return b + low * high\ndef f(b): return g(b, low=4)",
        "def g(b, low=0, high=9): return b + low * high\ndef f(b): return g(b, high=4)",
    ),
    "keyword of a method": (
        "def f(b): return b.reshape(2, -1).mean(axis=1)",
        "def f(b): return b.reshape(2, -1).mean(keepdims=1)",
    ),
    "start of try": (
        "def f(b):\n    c = int(b)\n    try:\n        c += 2\n    except ValueError:\n        c = 7\n"
        "    return c",
        "def f(b):\n    try:\n        c = int(b)\n        c += 2\n    except ValueError:\n"
        "        c = 7\n    return c",
    ),
    "end of try": (
        "def f(b):\n    try:\n        c = b[0]\n        c = c / b[1]\n    except IndexError:\n"
        "        c = b\n    return c",
        "def f(b):\n    try:\n        c = b[0]\n    except IndexError:\n        c = b\n    else:\n"
        "        c = c / b[1]\n"
        "    return c",
    ),
    "which try": (
        "def f(b):\n    try:\n        b = b.mean()\n        try:\n            b = b - 1\n"
        "        except OSError:\n            b = 3\n    except OSError:\n        b = 5\n    return b",
        "def f(b):\n    try:\n        try:\n            b = b.mean()\n            b = b - 1\n"
        "        except OSError:\n            b = 3\n    except OSError:\n        b = 5\n    return b",
    ),
    "name of a local variable": (
        "lut={'a': 1}\ndef f(b):\n    def g():\n        lut={}; lut['a']=0; return lut\n"
        "    return b*lut['a'], g()",
        "lut={'a': 2}\ndef f(b):\n    def g():\n        lut={}; lut['a']=0; return lut\n"
        "    return b*lut['a'], g()",
    ),
    "name of an argument": (
        "lut=[5]\ndef f(b):\n    def g(*lut, out): out.append(1); lut[0].extend(out)\n    return b*lut[0], g",
        "lut=[6]\ndef f(b):\n    def g(*lut, out): out.append(1); lut[0].extend(out)\n    return b*lut[0], g",
    ),
    "name of a variable in another scope": (
        "lut=[5]\n"
        "def f(b):\n"
        "    def g():\n"
        "        lut=[]\n"
        "        def h(): lut.append(1)\n"
        "        return h\n"
        "    return b*lut[0], g",
        "lut=[8]\n"
        "def f(b):\n"
        "    def g():\n"
        "        lut=[]\n"
        "        def h(): lut.append(1)\n"
        "        return h\n"
        "    return b*lut[0], g",
    ),
    "name of an attribute": (
        "seen={0: 3}\ndef f(b, s):\n    s.seen[0] = b\n    return b * seen[0]",
        "seen={0: 4}\ndef f(b, s):\n    s.seen[0] = b\n    return b * seen[0]",
    ),
    "name of a member of a class": (
        "lut=[5]\ndef f(b):\n    class C:\n        lut=[]; lut.append(b)\n    return b*lut[0], C",
        "lut=[8]\ndef f(b):\n    class C:\n        lut=[]; lut.append(b)\n    return b*lut[0], C",
    ),
    "array that is changed": (
        "import numpy as np\nW=np.full(4, 3.)\ndef f(b):\n    W[1]=0\n    return b*W",
        "import numpy as np\nW=np.full(4, 5.)\ndef f(b):\n    W[1]=0\n    return b*W",
    ),
    "attribute that is changed": (
        "import numpy as np\n"
        "class C:\n"
        "    def __call__(s,b):\n"
        "        s.w[1]=0\n"
        "        return b*s.w\n"
        "f=C(); f.w=np.full(4, 3.)",
        "import numpy as np\n"
        "class C:\n"
        "    def __call__(s,b):\n"
        "        s.w[1]=0\n"
        "        return b*s.w\n"
        "f=C(); f.w=np.full(4, 5.)",
    ),
    "property": (
        "class C:\n    @property\n    def k(s): return 1\n    def __call__(s,b): return b*s.k\nf=C()",
        "class C:\n    @property\n    def k(s): return 2\n    def __call__(s,b): return b*s.k\nf=C()",
    ),
    "cached_property": (
        "from functools import cached_property\n"
        "class C:\n"
        "    @cached_property\n"
        "    def k(s): return 1\n"
        "    def __call__(s,b): return b*s.k\n"
        "f=C()",
        "from functools import cached_property\n"
        "class C:\n"
        "    @cached_property\n"
        "    def k(s): return 2\n"
        "    def __call__(s,b): return b*s.k\n"
        "f=C()",
    ),
    "staticmethod": (
        "class C:\n    @staticmethod\n    def g(b): return b\n    def __call__(s,b): return s.g(b)\nf=C()",
        "class C:\n    @staticmethod\n    def g(b): return -b\n    def __call__(s,b): return s.g(b)\nf=C()",
    ),
    "metaclass": (
        "class M(type):\n    k=1\nclass C(metaclass=M):\n    pass\nf=lambda b: b*C.k",
        "class M(type):\n    k=2\nclass C(metaclass=M):\n    pass\nf=lambda b: b*C.k",
    ),
    "slots": (
        "class C:\n"
        "    __slots__='k',\n"
        "    def __init__(s,k): s.k=k\n"
        "    def __call__(s,b): return b*s.k\n"
        "f=C(1)",
        "class C:\n"
        "    __slots__='k',\n"
        "    def __init__(s,k): s.k=k\n"
        "    def __call__(s,b): return b*s.k\n"
        "f=C(2)",
    ),
    "dataclass default": (
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class C:\n"
        "    k: int=1\n"
        "    def __call__(s,b): return b*s.k\n"
        "f=C()",
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class C:\n"
        "    k: int=2\n"
        "    def __call__(s,b): return b*s.k\n"
        "f=C()",
    ),
    "namedtuple": (
        "from collections import namedtuple\nP=namedtuple('P','a b')\np=P(1,2)\nf=lambda b: b*p.a",
        "from collections import namedtuple\nP=namedtuple('P','a b')\np=P(2,2)\nf=lambda b: b*p.a",
    ),
    "enum": (
        "import enum\nclass E(enum.Enum):\n    A=1\nf=lambda b: b*E.A.value",
        "import enum\nclass E(enum.Enum):\n    A=2\nf=lambda b: b*E.A.value",
    ),
    "singledispatch": (
        "from functools import singledispatch\n@singledispatch\ndef g(b): return b\nf=lambda b: g(b)",
        "from functools import singledispatch\n@singledispatch\ndef g(b): return -b\nf=lambda b: g(b)",
    ),
    "singledispatch reg": (
        "from functools import singledispatch\n"
        "@singledispatch\n"
        "def g(b): return b\n"
        "@g.register\n"
        "def _(b: int): return 1\n"
        "f=lambda b: g(b)",
        "from functools import singledispatch\n"
        "@singledispatch\n"
        "def g(b): return b\n"
        "@g.register\n"
        "def _(b: int): return 2\n"
        "f=lambda b: g(b)",
    ),
    "wraps": (
        "import functools\nimport numpy as np\n@functools.wraps(np.mean)\ndef f(b): return b",
        "import functools\nimport numpy as np\n@functools.wraps(np.mean)\ndef f(b): return -b",
    ),
    "decorated": (
        "import functools\n"
        "def d(g):\n"
        "    @functools.wraps(g)\n"
        "    def w(b): return g(b)*2\n"
        "    return w\n"
        "@d\n"
        "def f(b): return b",
        "import functools\n"
        "def d(g):\n"
        "    @functools.wraps(g)\n"
        "    def w(b): return g(b)*3\n"
        "    return w\n"
        "@d\n"
        "def f(b): return b",
    ),
    "decorated inner": (
        "import functools\n"
        "def d(g):\n"
        "    @functools.wraps(g)\n"
        "    def w(b): return g(b)*2\n"
        "    return w\n"
        "@d\n"
        "def f(b): return b",
        "import functools\n"
        "def d(g):\n"
        "    @functools.wraps(g)\n"
        "    def w(b): return g(b)*2\n"
        "    return w\n"
        "@d\n"
        "def f(b): return -b",
    ),
    "generator": (
        "def g(): yield 1\nf=lambda b: sum(g())",
        "def g(): yield 2\nf=lambda b: sum(g())",
    ),
    "global weights subscript": (
        "import numpy as np\nW=np.arange(3.)\ndef f(b):\n    out=b.copy(); out[0]=W[0]; return out",
        "import numpy as np\nW=np.arange(3.)+1\ndef f(b):\n    out=b.copy(); out[0]=W[0]; return out",
    ),
    "layers add": (
        "class S:\n"
        "    def __init__(s): s.l=[]\n"
        "    def add(s,x): s.l.append(x)\n"
        "    def __call__(s,b): return b*s.l[0]\n"
        "f=S(); f.add(1)",
        "class S:\n"
        "    def __init__(s): s.l=[]\n"
        "    def add(s,x): s.l.append(x)\n"
        "    def __call__(s,b): return b*s.l[0]\n"
        "f=S(); f.add(2)",
    ),
    "bound method": (
        "class S:\n    def __init__(s,k): s.k=k\n    def p(s,b): return b*s.k\nf=S(1).p",
        "class S:\n    def __init__(s,k): s.k=k\n    def p(s,b): return b*s.k\nf=S(2).p",
    ),
    "classmethod": (
        "class S:\n    k=1\n    @classmethod\n    def p(c,b): return b*c.k\nf=S.p",
        "class S:\n    k=2\n    @classmethod\n    def p(c,b): return b*c.k\nf=S.p",
    ),
    "try": (
        "def f(b):\n    try: return b\n    except ValueError: return 0",
        "def f(b):\n    try: return b\n    except TypeError: return 0",
    ),
    "with structured": (
        "import numpy as np\nW=np.zeros(2,[('a','i1'),('b','f8')])\nf=lambda b: W",
        "import numpy as np\nW=np.zeros(2,[('a','i1'),('b','f8')]); W['b']=1\nf=lambda b: W",
    ),
    "weakref": (
        "import weakref\nclass Q: pass\nq=Q(); q.k=1\nr=weakref.ref(q)\nf=lambda b: b*r().k",
        "import weakref\nclass Q: pass\nq=Q(); q.k=2\nr=weakref.ref(q)\nf=lambda b: b*r().k",
    ),
    "mappingproxy": (
        "import types\nM=types.MappingProxyType({'a':1})\nf=lambda b: b*M['a']",
        "import types\nM=types.MappingProxyType({'a':2})\nf=lambda b: b*M['a']",
    ),
    "regex": (
        "import re\nM=re.compile('a')\nf=lambda b: M.match(b)",
        "import re\nM=re.compile('b')\nf=lambda b: M.match(b)",
    ),
    "make_dataclass": (
        "from dataclasses import make_dataclass\nC=make_dataclass('C',[('k',int,1)])\nf=lambda b: C().k",
        "from dataclasses import make_dataclass\nC=make_dataclass('C',[('k',int,2)])\nf=lambda b: C().k",
    ),
    "xarray": (
        "import xarray as xr\nW=xr.DataArray([1,2])\nf=lambda b: W",
        "import xarray as xr\nW=xr.DataArray([1,3])\nf=lambda b: W",
    ),
    "pandas": (
        "import pandas as pd\nW=pd.DataFrame({'a':[1,2],'s':['x','y']})\nf=lambda b: W",
        "import pandas as pd\nW=pd.DataFrame({'a':[1,2],'s':['x','z']})\nf=lambda b: W",
    ),
    "masked array": (
        "import numpy as np\nW=np.ma.masked_equal([1,2],1)\nf=lambda b: W",
        "import numpy as np\nW=np.ma.masked_equal([1,2],2)\nf=lambda b: W",
    ),
    "super": (
        "class A:\n    def g(s,b): return b\nclass B(A):\n    def g(s,b): return super().g(b)+1\nf=B().g",
        "class A:\n    def g(s,b): return -b\nclass B(A):\n    def g(s,b): return super().g(b)+1\nf=B().g",
    ),
    "async": (
        "async def f(b): return b",
        "def f(b): return b",
    ),
    "random gen": (
        "import numpy as np\nR=np.random.default_rng(1)\nf=lambda b: R.random()",
        "import numpy as np\nR=np.random.default_rng(2)\nf=lambda b: R.random()",
    ),
    "counter also weight float": (
        "class C:\n"
        "    def __init__(s,n): s.n=n\n"
        "    def __call__(s,b):\n"
        "        s.n *= 1.0\n"
        "        return b*s.n\n"
        "f=C(1.5)",
        "class C:\n"
        "    def __init__(s,n): s.n=n\n"
        "    def __call__(s,b):\n"
        "        s.n *= 1.0\n"
        "        return b*s.n\n"
        "f=C(2.5)",
    ),
    "function in dict": (
        "D={'a': lambda b: b}\nf=lambda b: D['a'](b)",
        "D={'a': lambda b: -b}\nf=lambda b: D['a'](b)",
    ),
}


@pytest.mark.parametrize("what", NO_CHANGE)
def test_changes_without_effect(what):
    one, two = (content_hash(function_of(source)) for source in NO_CHANGE[what])
    assert one == two is not None


@pytest.mark.parametrize("what", CHANGE)
def test_changes_with_effect(what):
    one, again, two = (content_hash(function_of(CHANGE[what][i])) for i in (0, 0, 1))
    assert one == again is not None
    assert one != two


def test_functions_that_cannot_be_compared():
    """numpy does not tell which function a ufunc calls."""
    assert content_hash(np.frompyfunc(lambda b: b, 1, 1)) is None


def test_versions_of_libraries_matter(monkeypatch):
    from xee_tf.identity import code

    functions = np.mean, np.sin, np.random.default_rng, np.poly1d, np.testing.assert_equal
    before = [content_hash(each) for each in functions]
    code.library_version.cache_clear()
    monkeypatch.setattr(np, "__version__", "99.0")
    assert not {content_hash(each) for each in functions}.intersection(before)
    assert content_hash(np.trace) != content_hash(np.linalg.trace)
    code.library_version.cache_clear()


@dataclasses.dataclass(frozen=True)
class Scale:
    factor: float
    weights: object = None

    def __call__(self, pixels):
        return self.factor * pixels

    def twice(self, pixels):
        return 2 * self(pixels)


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


@functools.lru_cache
def slow(n):
    return n


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Scale(1.0), Scale(2.0)),
        (Scale(1.0).twice, Scale(2.0).twice),
        (Scale(1.0, np.arange(4)), Scale(1.0, np.arange(4)[::-1])),
        (even, odd),
        (np.sin, np.cos),
        (slow, even),
        (np.vectorize(even), np.vectorize(odd)),
        (str.upper, str.lower),
        ("a".join, "b".join),
    ],
    ids=range(9),
)
def test_callable_objects(one, two):
    assert content(one) == content(one) is not None
    assert content(one) != content(two)
    assert content(one) != content(one, named=True)


def test_cycles_and_shared_objects():
    loop = [1]
    loop.append(loop)
    again = [1]
    again.append(again)
    assert content_hash(loop) == content_hash(again) != content_hash([1, [1]])
    part = [2]
    assert content_hash([part, part]) == content_hash([[2], [2]])


def test_dask_tokenize_of_an_object():
    class Named:
        def __init__(self, name):
            self.name, self.counter = name, np.random.default_rng().random()

        def __call__(self, pixels):
            return pixels

        def __dask_tokenize__(self):
            return self.name

    assert content(Named("forest-7")) == content(Named("forest-7")) != content(Named("forest-8"))


def test_objects_that_cannot_be_hashed():
    class Broken:
        def __reduce_ex__(self, protocol):
            raise TypeError("no")

    assert content_hash(Broken()) is None
    assert content_hash([1, Broken()]) is None


def test_hashes_are_the_same_in_every_process(tmp_path):
    code = (
        "import functools, numpy as np\n"
        "from xee_tf.identity import content_hash\n"
        "from tests.test_identity import Scale, even, function_of, DIFFERENT\n"
        "K = {'a', 'b', 'c'}\n"
        "def f(b, scale={'x': 1.5}): return b * scale['x'] if 'a' in K else g(b)\n"
        "g = lambda b: np.tanh(b) in {'u', 'v', 'w'}\n"
        "for each in (f, g, functools.partial(f, scale=K), Scale(2.0, np.arange(3)), even, Scale,\n"
        "             *(function_of(source) for pair in DIFFERENT for source in pair)):\n"
        "    print(content_hash(each))\n"
    )
    found = []
    for seed in "12":
        script = tmp_path / seed / "script.py"
        script.parent.mkdir()
        script.write_text("\n" * int(seed) + code)
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=100)
        assert not done.returncode, done.stderr
        found.append(done.stdout.split())
    assert found[0] == found[1]
    assert len(found[0]) == 6 + 2 * len(DIFFERENT)
    assert "None" not in found[0]


# -- Models -------------------------------------------------------------------------------------------


def keras_model(seed, units=2):
    keras = pytest.importorskip("keras")

    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8, 2), name="pixels"), keras.layers.Conv2D(units, 1, name="conv")]
    return keras.Sequential(layers, name="small")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_models_are_hashed_by_configuration_and_weights(tmp_path):
    found = {}
    for name, seed, units in (("one", 1, 2), ("same", 1, 2), ("weights", 2, 2), ("layers", 1, 3)):
        model = keras_model(seed, units)
        model.save(tmp_path / f"{name}.keras")
        found[name] = [
            Model.from_keras(each).connector.content() for each in (model, tmp_path / f"{name}.keras")
        ]
    for number in (0, 1):
        assert found["one"][number] == found["same"][number]
        assert len({found[name][number] for name in ("one", "weights", "layers")}) == 3


OWN = """
import keras

@keras.saving.register_keras_serializable("own")
def scale(x):
    return x * {factor}

@keras.saving.register_keras_serializable("own")
class Shift(keras.layers.Layer):
    def call(self, x):
        return x + {term}
"""


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_own_functions_and_classes_of_keras_models(tmp_path):
    keras = pytest.importorskip("keras")

    def built(factor=2, term=1, twice="lambda x: 2 * x", lines=0):
        keras.utils.set_random_seed(1)
        shift = function_of(OWN.format(factor=factor, term=term), "Shift")
        scale = function_of(OWN.format(factor=factor, term=term), "scale")
        layers = [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(2, 1, activation=scale),
            shift(),
            keras.layers.Lambda(function_of(f"{lines * chr(10)}f = {twice}"), output_shape=(8, 8, 2)),
        ]
        return keras.Sequential(layers)

    same = content_hash(built())
    assert same is not None
    assert content_hash(built(lines=3)) == same  # in the same session, Keras names the layers differently
    compiled = built()
    compiled.compile("adam", "mse")
    assert content_hash(compiled) == same
    others = [built(factor=3), built(term=2), built(twice="lambda x: 3 * x")]
    assert len({same, *map(content_hash, others)}) == 4
    built().save(tmp_path / "own.keras")
    before = Model.from_keras(tmp_path / "own.keras").connector.content()
    built()
    assert Model.from_keras(tmp_path / "own.keras").connector.content() == before
    built(factor=3)  # registers another function for the same file
    assert Model.from_keras(tmp_path / "own.keras").connector.content() != before


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_models_without_configuration():
    keras = pytest.importorskip("keras")

    class Scaled(keras.Model):
        def __init__(self, factor):
            super().__init__()
            self.factor, self.dense = factor, keras.layers.Dense(1)

        def call(self, x):
            return self.factor * self.dense(x)

    def built(factor):
        keras.utils.set_random_seed(1)
        model = Scaled(factor)
        model(np.ones((1, 2)))
        return content_hash(model)

    assert built(1) == built(1) is not None
    assert built(1) != built(2)


def test_saved_models_are_hashed_by_their_files(tmp_path):
    import shutil

    keras_model(1).export(str(tmp_path / "one"), verbose=False)
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    (tmp_path / "moved" / "fingerprint.pb").unlink()
    keras_model(2).export(str(tmp_path / "other"), verbose=False)
    one, moved, other = (
        Model.from_saved_model(tmp_path / name).connector.content() for name in ("one", "moved", "other")
    )
    assert one == moved != other


def test_hosted_models_are_hashed_by_url_and_signature():
    pytest.importorskip("requests")
    pytest.importorskip("orjson")

    def hosted(url="http://models:8501", model="landcover", **options):
        return Model.from_tf_serving(url, model, **options).connector.content()

    same = hosted(max_payload_bytes=10_000, timeout=3.0)
    assert hosted() == same is not None
    others = [
        hosted("http://models:8502"),
        hosted(model="forest"),
        hosted(version=2),
        hosted(label="stable"),
        hosted(signature_name="other"),
        hosted("models:8501", transport="grpc"),
    ]
    assert len({same, *others}) == 1 + len(others)


# -- Modules of the user ------------------------------------------------------------------------------

USES = {
    "import in the function": "def f(b):\n    import own\n    return own.direct(b)",
    "import of a name": "def f(b):\n    from own import direct as d\n    return d(b)",
    "import of a submodule": "def f(b):\n    from own import sub\n    return sub.scale(b)",
    "import of a deep name": "def f(b):\n    from own.sub import scale\n    return scale(b)",
    "import of a deep module": "def f(b):\n    import own.sub as s\n    return s.scale(b)",
    "import in a nested function": "def f(b):\n"
    "    def g():\n        import own.sub\n        return own.sub.K\n    return g()",
    "global": "import own.sub\ndef f(b): return own.sub.scale(b)",
    "closure": "def make():\n    import own.sub\n    return lambda b: own.sub.scale(b)\nf = make()",
    "default": "import own.sub\ndef f(b, *, m=own): return m.sub.scale(b)",
    "method": "class C:\n"
    "    def __call__(self, b):\n        import own.sub\n        return own.sub.K\nf = C()",
    "attribute": "import own.sub\n"
    "class C:\n    m = own.sub\n    def __call__(self, b): return self.m.scale(b)\nf = C()",
    "instance": "import own.sub\nfrom types import SimpleNamespace\n"
    "def make(m):\n    return lambda b: m.m.scale(b)\nf = make(SimpleNamespace(m=own.sub))",
    "relative import": "def f(b):\n    import own\n    return own.related(b)",
}


def test_modules_of_the_user_change_the_hash(tmp_path):
    """Each time in a new process, and once with modules that are already imported."""
    found = []
    for number, factor in enumerate((2, 2, 3, 2)):
        remark = '"""A module."""\n# A remark.\n' if number == 3 else ""
        folder = tmp_path / str(number)
        (folder / "own").mkdir(parents=True)
        # The modules import each other.
        (folder / "own" / "__init__.py").write_text(
            f"{remark}K = {factor}\ndef direct(b): return K * b\n"
            "def related(b):\n    from .sub import scale\n    return scale(b)\n"
        )
        (folder / "own" / "sub.py").write_text(
            f"{remark}import own\nK = {factor}\ndef scale(b): return b * K if b is None else own.sub.K\n"
        )
        script = folder / "script.py"
        script.write_text(
            ("import own.sub\n" if number == 1 else "")
            + "from xee_tf.models.function import FunctionConnector\n"
            f"for source in {list(USES.values())!r}:\n"
            "    names = {'__name__': '__main__'}\n"
            "    exec(source, names)\n"
            "    print(FunctionConnector.of(names['f']).content())\n"
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=100)
        assert not done.returncode, done.stderr
        found.append(dict(zip(USES, done.stdout.split(), strict=True)))
    assert found[0] == found[1] == found[3]
    assert not [use for use in USES if found[0][use] == found[2][use]]
    assert "None" not in found[0].values()


def test_imported_libraries_are_hashed_by_name():
    one, two = (function_of(f"def f(b):\n    import {name}\n    return b") for name in ("json", "nosuch_x"))
    assert content(one) == content(one)
    assert content(two) == content(two) != content(one)
