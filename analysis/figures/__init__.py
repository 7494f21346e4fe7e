"""The figures by the names of their files."""

from analysis.figures import ablations, more, paper

FIGURES = {
    "fig1_right": paper.fig1_right,
    "fig2": paper.fig2,
    "fig3": paper.fig3,
    "fig4": paper.fig4,
    "fig4_tokens": paper.fig4_tokens,
    "fig4_device_hours": paper.fig4_device_hours,
    "fig5": ablations.fig5,
    "fig6": ablations.fig6,
    "fig7": paper.fig7,
    "fig8": paper.fig8,
    "fig9": paper.fig9,
    "fig10": paper.fig10,
    "fig11": paper.fig11,
    "fig_pairwise": more.fig_pairwise,
    "fig_problems": more.fig_problems,
    "fig_profiles": more.fig_profiles,
    "fig_agreement": more.fig_agreement,
    "fig_position_divergence": more.fig_position_divergence,
    "fig_position_masking": more.fig_position_masking,
    "fig_stability": more.fig_stability,
    "fig_power": more.fig_power,
}
