"""How plots look on every page: legible on white and on black, told apart by colour-blind readers."""

from bokeh.models import DatetimeTickFormatter
from bokeh.plotting import figure

OURS = "#2f86d6"  # after Okabe and Ito
OBSERVED = "#8a8f98"
ORANGE = "#e0701a"
MUTED = "#7b838d"  # text and axes before the page's script picks the scheme's colour
TOOLS = "xpan,xbox_zoom,reset,save"
HEIGHT_PIXELS = 280


def dressed(plot: figure) -> figure:
    """Give a figure the common look: transparent, muted axes, a toolbar that hides itself."""
    plot.sizing_mode = "stretch_width"
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = MUTED
        axis.major_label_text_color = axis.axis_label_text_color = MUTED
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
    for grid in (*plot.xgrid, *plot.ygrid):
        grid.grid_line_color, grid.grid_line_alpha = MUTED, 0.22
    return plot


def clock_axis(plot: figure) -> None:
    """Label a time axis by hours and days."""
    plot.xaxis.formatter = DatetimeTickFormatter(
        hours="%H:%M", hourmin="%H:%M", minutes="%H:%M", days="%a %d"
    )
