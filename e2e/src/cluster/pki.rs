//! The certificates of a cluster: one authority, the API server, and a kubeconfig for everybody who talks to it.

use super::layout::{API_PORT, API_SERVICE, FABRIC, Layout, write};
use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Names and groups of those who talk to the API server, beside the nodes.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("kubelet-client", "apiserver-kubelet-client", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
];

/// Writes everything into the cluster's `pki` folder.
pub(super) fn create(layout: &Layout, nodes: &[String]) -> Result<()> {
    let key = key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("cluster-ca", "");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).context("the cluster's authority is not signed")?.pem();
    let authority = Authority { layout, certificate, issuer: Issuer::new(params, key) };
    authority.store("ca", &authority.certificate, &authority.issuer.key().serialize_pem())?;
    let service_accounts = self::key()?;
    write(&layout.pki().join("service-accounts.key"), &service_accounts.serialize_pem())?;
    write(&layout.pki().join("service-accounts.pub"), &service_accounts.public_key_pem())?;
    authority.server()?;
    for (file, common, organization) in CLIENTS {
        authority.client(file, common, organization)?;
    }
    nodes.iter().try_for_each(|node| authority.client(node, &format!("system:node:{node}"), "system:nodes"))
}

struct Authority<'a> {
    layout: &'a Layout,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority<'_> {
    fn server(&self) -> Result<()> {
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1"];
        let addresses = [FABRIC, API_SERVICE].map(|address| address.to_string());
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).chain(addresses).collect();
        let mut params = CertificateParams::new(names).context("the API server's names")?;
        params.distinguished_name = name("kube-apiserver", "");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue("apiserver", &params).map(drop)
    }

    /// A certificate and the kubeconfig that holds it.
    fn client(&self, file: &str, common: &str, organization: &str) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(file, &params)?;
        let pki = self.layout.pki();
        let path = |name: &str| pki.join(name).display().to_string();
        // JSON is YAML.
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "castgate", "cluster": {
                "server": format!("https://{FABRIC}:{API_PORT}"),
                "certificate-authority": path("ca.crt"),
            }}],
            "users": [{"name": common, "user": {
                "client-certificate": path(&format!("{file}.crt")),
                "client-key": path(&format!("{file}.key")),
            }}],
            "contexts": [{"name": "castgate", "context": {"cluster": "castgate", "user": common}}],
            "current-context": "castgate",
        });
        write(&pki.join(format!("{file}.conf")), &config.to_string())
    }

    fn issue(&self, file: &str, params: &CertificateParams) -> Result<()> {
        let key = key()?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("{file} is not signed"))?;
        self.store(file, &certificate.pem(), &key.serialize_pem())
    }

    fn store(&self, file: &str, certificate: &str, key: &str) -> Result<()> {
        write(&self.layout.pki().join(format!("{file}.crt")), certificate)?;
        write(&self.layout.pki().join(format!("{file}.key")), key)
    }
}

fn key() -> Result<KeyPair> {
    KeyPair::generate().context("no key is made")
}

fn name(common: &str, organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if !organization.is_empty() {
        name.push(DnType::OrganizationName, organization);
    }
    name
}
