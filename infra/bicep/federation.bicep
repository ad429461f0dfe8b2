// Lets a relay outside Azure sign in as the identity with a token of an issuer that Entra ID
// can reach, such as that of a Kubernetes cluster: there is no secret to keep or renew.

param identityName string

@description('name, issuer and subject of each: https://oidc.example.com/cluster and system:serviceaccount:NAMESPACE:ACCOUNT.')
param credentials array

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = {
  name: identityName
}

// One after another: the service refuses two writes to one identity at the same time.
@batchSize(1)
resource federated 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2024-11-30' = [
  for credential in credentials: {
    parent: identity
    name: credential.name
    properties: {
      issuer: credential.issuer
      subject: credential.subject
      audiences: ['api://AzureADTokenExchange']
    }
  }
]
