"""Reports as charts: a bar for each day's cost, drawn once for SVG and for PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import font_roboto
from PIL import Image, ImageDraw, ImageFont

from services.billing.money import to_text
from services.billing.reports.report import Report

WIDTH, HEIGHT, EDGE = 960, 320, 48
FLOOR = HEIGHT - EDGE
BAR, LINE, INK = "#2b6cb0", "#888888", "#000000"
TITLE_SIZE, LABEL_SIZE = 14, 12


@dataclass(frozen=True, slots=True)
class Bar:
    """A day's cost, in pixels from the upper left corner."""

    x: float
    y: float
    width: float
    height: float
    label: str


def as_svg(report: Report) -> bytes:
    """The chart as a drawing; each bar says what it stands for."""
    title = escape(_title(report))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="{LABEL_SIZE}">',
        f"<title>{title}</title>",
        f'<text x="{EDGE}" y="20" font-size="{TITLE_SIZE}">{title}</text>',
        *(
            f'<rect x="{bar.x:.1f}" y="{bar.y:.1f}" width="{bar.width:.1f}" height="{bar.height:.1f}" fill="{BAR}">'
            f"<title>{escape(bar.label)}</title></rect>"
            for bar in bars(report)
        ),
        f'<line x1="{EDGE}" y1="{FLOOR}" x2="{WIDTH - EDGE}" y2="{FLOOR}" stroke="{LINE}"/>',
        f'<text x="{EDGE}" y="{FLOOR + 20}">{report.start.date()}</text>',
        f'<text x="{WIDTH - EDGE}" y="{FLOOR + 20}" text-anchor="end">{report.end.date()}</text>',
        "</svg>",
    ]
    return "\n".join(parts).encode()


def as_png(report: Report) -> bytes:
    """The chart as a picture."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    font = font_roboto.font_files["Roboto"]
    label = ImageFont.truetype(font, LABEL_SIZE)
    pen.text((EDGE, 20), _title(report), fill=INK, font=ImageFont.truetype(font, TITLE_SIZE), anchor="ls")
    for bar in bars(report):
        pen.rectangle((bar.x, bar.y, bar.x + bar.width, bar.y + bar.height), fill=BAR)
    pen.line((EDGE, FLOOR, WIDTH - EDGE, FLOOR), fill=LINE)
    pen.text((EDGE, FLOOR + 20), str(report.start.date()), fill=INK, font=label, anchor="ls")
    pen.text((WIDTH - EDGE, FLOOR + 20), str(report.end.date()), fill=INK, font=label, anchor="rs")
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def bars(report: Report) -> Iterator[Bar]:
    """A bar for each day, the dearest as high as there is room; days that gave money back stand on the floor."""
    dearest = max((day.cost_micros for day in report.days), default=0)
    step = (WIDTH - 2 * EDGE) / max(1, len(report.days))
    room = HEIGHT - 2 * EDGE
    for number, day in enumerate(report.days):
        height = room * max(0, day.cost_micros) / dearest if dearest > 0 else 0
        label = f"{day.name[:10]}: {to_text(day.cost_micros)} {report.currency_code}"
        yield Bar(EDGE + number * step, FLOOR - height, step * 0.8, height, label)


def _title(report: Report) -> str:
    return f"{report.tenant_id}: {to_text(report.total.cost_micros)} {report.currency_code}"
