//! The disruption budget (rule O9): 1 at rest, 0 while a copy is missing or a drain or roll runs.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};

use super::{Child, HANDED_OVER, Wanted};

/// The budget. A pod that was emptied is outside it, so that it alone can go while nobody else can; see
/// [`crate::logic::roll`].
pub fn render(wanted: &Wanted<'_>, max_unavailable: i32) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: wanted.id.metadata(Child::DisruptionBudget),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(max_unavailable)),
            selector: Some(LabelSelector {
                match_labels: Some(wanted.id.labels()),
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: HANDED_OVER.to_owned(),
                    operator: "DoesNotExist".to_owned(),
                    values: None,
                }]),
            }),
            unhealthy_pod_eviction_policy: Some("IfHealthyBudget".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
