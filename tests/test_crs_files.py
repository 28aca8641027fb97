"""Files and URLs in texts of CRSs are never opened."""

import json
import os
import random
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyproj
import pytest
from pyproj.database import query_crs_info

from tests.conftest import ROOT
from xee_tf import GeoreferenceError
from xee_tf.georef import read_crs
from xee_tf.georef.crs import crs_of_cf
from xee_tf.georef.crs_files import require_no_files

DATUM = 'DATUM["d",{ellipsoid}["GRS 1980",6378137,298.257222101]{extension}]'
BASE = 'GEOGCS["b",' + DATUM + ',PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]]'
OLD = (
    'PROJCS["p",' + BASE.format(ellipsoid="SPHEROID", extension="") + ',PROJECTION["Transverse_Mercator"],'
    'PARAMETER["central_meridian",9],PARAMETER["scale_factor",1],UNIT["metre",1]{extension}]'
)
AXES = 'CS[Cartesian,2],AXIS["e",east],AXIS["n",north],LENGTHUNIT["metre",1]'
NEW = (
    'PROJCRS["p",BASEGEOGCRS["b",' + DATUM.format(ellipsoid="ELLIPSOID", extension="") + "],"
    'CONVERSION["c",METHOD["{method}"]{parameter}],' + AXES + "{remark}]"
)
BOUND = json.dumps(pyproj.CRS("+proj=longlat +ellps=GRS80 +nadgrids=GRID +type=crs").to_json_dict())
REMARKED = pyproj.CRS(
    NEW.format(
        method="Transverse Mercator",
        parameter=',PARAMETER["Longitude of natural origin",9]',
        remark=',REMARK["source: https://epsg.org/?id=1"]',
    )
)


def texts(file):
    """Return texts of CRSs that refer to a file or URL."""
    proj = f"+proj=tmerc +lon_0=9 +ellps=GRS80 +nadgrids={file}"
    extension = f',EXTENSION["PROJ4","{proj}"]'
    parameter = ',PARAMETER["Longitude of natural origin",9]'
    opening = [
        "tinshift file",
        "defmodel model",
        "hgridshift grids",
        "xyzgridshift grids",
        "vgridshift grids",
    ]
    return [
        file,
        proj,
        f"{proj} +type=crs",
        proj.replace("=", " = "),
        proj.replace("nadgrids=", "nadgrids=@null,"),
        proj.replace("nadgrids=", "geoidgrids="),
        proj.replace("+nad", "+title=x nad"),
        proj.replace("+nad", "+title=a / b +nad"),
        f"+init={file}:1",
        f"+title=x +init={file}:1 +type=crs",
        f"+proj\xa0=tmerc +grids={file}",
        BASE.format(ellipsoid="SPHEROID", extension=f',EXTENSION["PROJ4_GRIDS","{file}"]'),
        OLD.format(extension=extension),
        OLD.format(extension=extension.replace("proj=", 'pro""j=')),
        OLD.format(extension=extension.replace("tmerc", "tm\u201derc")),
        OLD.format(extension=extension).translate({ord('"'): "\u201c"}),
        OLD.format(extension=f',EXTENSION["PROJ4","+proj=tinshift +file={file}"]'),
        NEW.format(
            method="Transverse Mercator", parameter=parameter, remark=f',REMARK["PROJ CRS string: {proj}"]'
        ),
        OLD.format(extension=extension.replace("proj=", "proj \t=")),
        OLD.format(extension=extension.replace('"+proj=tmerc', '\u201c+proj=tmerc " ')),
        OLD.format(extension=extension.replace("proj=tmerc", "title=x +type=crs +init=x:1")),
        BOUND.replace("GRID", file),
        pyproj.CRS(BOUND.replace("GRID", "conus")).to_wkt().replace("conus", file),
        json.dumps({"proj": "tmerc", "ellps": "GRS80", "nadgrids": file}),
        *(f"+proj={name.replace(' ', ' +')}={file} +type=crs" for name in opening),
        *(NEW.format(method=f"PROJ {name}={file}", parameter="", remark="") for name in opening),
    ]


ATTACK = """
import ctypes, json, os, sys
import numpy as np, pyproj, rasterio.crs, rasterio.warp
from xee_tf import GeoreferenceError
from xee_tf.georef import read_crs
from xee_tf.georef.crs import point_transformer

watch = -1
if sys.platform == "linux":
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, b"grid", 0x20) > 0  # IN_OPEN

def opened():
    try:
        return watch >= 0 and len(os.read(watch, 4096)) > 0
    except BlockingIOError:
        return False

refused, found = 0, []
for text in json.load(sys.stdin):
    try:
        crs = read_crs(text)
    except GeoreferenceError:
        refused += 1
    else:
        for use in (
            lambda: point_transformer(crs, pyproj.CRS("EPSG:4326"))(np.ones((2, 2))),
            lambda: rasterio.warp.transform(rasterio.crs.CRS.from_wkt(crs.to_wkt()), "EPSG:4326", [1], [1]),
        ):
            try:
                use()
            except Exception:
                pass
    if opened():
        found.append(text)
print(json.dumps([refused, found]))
"""


@pytest.fixture
def listener():
    """Yield a server that counts its connections."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self):
            server.connections += 1

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.connections = 0
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def attack(attacks, folder):
    """Parse and use CRSs in another process; return how many are refused, and those that opened the file."""
    (folder / "grid").write_text("<1> +proj=tmerc +lon_0=9 +ellps=GRS80 <>")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PROJ_NETWORK": "ON"}
    done = subprocess.run(
        [sys.executable, "-c", ATTACK],
        input=json.dumps(attacks),
        capture_output=True,
        text=True,
        cwd=folder,
        env=env,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_files_and_urls_are_not_opened(listener, tmp_path):
    files = [
        f"http://127.0.0.1:{listener.server_port}/grid",
        str(tmp_path / "grid"),
        "./grid",
        "@../x/../grid",
    ]
    attacks = [text for file in files for text in texts(file)]
    assert attack(attacks, tmp_path) == [len(attacks), []]
    assert listener.connections == 0


@pytest.mark.long
def test_altered_texts_open_nothing(listener, tmp_path):
    chance = random.Random()
    seed = chance.randrange(10**9)
    chance.seed(seed)
    url = f"http://127.0.0.1:{listener.server_port}/grid"
    known = [text for file in (url, str(tmp_path / "grid"), "./grid") for text in texts(file)]
    parts = [*' \t\n";,+=\\@()[]{}', '""', " = ", "\u201c", "\xa0", "//", "null,", "%2f"]
    attacks = []
    for _ in range(4000):
        text = chance.choice(known)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice([*parts, ""]) + text[at + chance.randint(0, 1) :]
        attacks.append(text)
    refused, found = attack(attacks, tmp_path)
    print(f"seed {seed}: {len(attacks)} texts, {refused} refused")
    assert not found
    assert listener.connections == 0


@pytest.mark.parametrize(
    "crs",
    [
        {"proj": "tmerc", "lon_0": 9, "ellps": "GRS80", "nadgrids": "/data/grid"},
        {"init": "/data/crs:1"},
        ("+init=/data/crs", "1"),
        b"+proj=tmerc +lon_0=9 +ellps=GRS80 +nadgrids=./grid",
        json.loads(BOUND.replace("GRID", "https://example.org/grid")),
        pyproj.CRS("+proj=tmerc +lon_0=9 +ellps=GRS80 +nadgrids=/data/grid"),
    ],
)
def test_other_types(crs):
    with pytest.raises(GeoreferenceError, match="refers to a file or URL, which is never opened"):
        read_crs(crs)


def test_null_characters_do_not_end_a_text():
    with pytest.raises(GeoreferenceError, match="null character"):
        read_crs("EPSG:3035\0+proj=pipeline")


def test_object_with_wkt():
    class Crs:
        def to_wkt(self):
            return "+init=/data/crs:1"

    with pytest.raises(GeoreferenceError, match="never opened"):
        read_crs(Crs())


def test_cf_attributes():
    attrs = {"grid_mapping_name": "latitude_longitude", "reference_ellipsoid_name": "+init=/data/crs:1"}
    with pytest.raises(ValueError, match="never opened"):
        crs_of_cf(attrs)
    attrs = {"grid_mapping_name": "latitude_longitude", "comment": "dx=3km, see https://example.org/grid"}
    assert crs_of_cf(attrs).is_geographic


@pytest.mark.parametrize(
    "crs",
    [
        "+proj=longlat +ellps=clrk66 +nadgrids=@conus,@alaska,ntv2_0.gsb",
        "http://www.opengis.net/def/crs/EPSG/0/32633",
        BOUND.replace("GRID", "us_noaa_conus.tif"),
        OLD.format(extension=',EXTENSION["PROJ4","+proj=tmerc +lon_0=9 +ellps=GRS80 +no_defs"]'),
        REMARKED.to_wkt(),
        json.dumps(REMARKED.to_json_dict()),
    ],
)
def test_grids_and_names_are_accepted(crs):
    assert read_crs(crs) == pyproj.CRS.from_user_input(crs)


@pytest.mark.parametrize("step", [150, pytest.param(1, marks=pytest.mark.long)])
def test_all_known_crs_are_accepted(step):
    infos = query_crs_info()[::step]
    for info in infos:
        crs = pyproj.CRS.from_authority(info.auth_name, info.code)
        require_no_files(crs.to_json_dict())
        for version in ("WKT2_2019", "WKT1_ESRI"):
            try:
                text = crs.to_wkt(version)
            except pyproj.exceptions.CRSError:
                continue
            require_no_files(text or "")
    print(f"{len(infos)} CRSs")
