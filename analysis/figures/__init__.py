"""The figures by the names of their files."""

from analysis.figures import ablations, beyond_paper, paper

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
    "fig_pairwise": beyond_paper.fig_pairwise,
    "fig_problems": beyond_paper.fig_problems,
    "fig_profiles": beyond_paper.fig_profiles,
    "fig_agreement": beyond_paper.fig_agreement,
    "fig_position_divergence": beyond_paper.fig_position_divergence,
    "fig_position_masking": beyond_paper.fig_position_masking,
    "fig_stability": beyond_paper.fig_stability,
    "fig_power": beyond_paper.fig_power,
}
