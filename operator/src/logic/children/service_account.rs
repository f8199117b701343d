//! The pods' identity. It has no rights, and no token is mounted.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Child, Wanted};

/// The `ServiceAccount`.
pub fn render(wanted: &Wanted<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: wanted.id.metadata(Child::ServiceAccount),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
