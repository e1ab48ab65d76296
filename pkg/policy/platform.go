// SPDX-License-Identifier: Apache-2.0

package policy

import "regexp"

// Platforms that are built.
const (
	PlatformAzure   = "azure"
	PlatformBedrock = "bedrock"
	PlatformVertex  = "vertex"
)

// platform is another way to address models of a dialect than the dialect's own API.
// pkg/inference has the same list with what each one does.
type platform struct {
	name     string
	dialects []string
	path     *regexp.Regexp // of the base URL
	base     string         // how it is written
	key      string         // what the secret is, for the reference
}

var platforms = []platform{
	{PlatformAzure, []string{DialectOpenAI}, regexp.MustCompile(`^(.*/openai(/v1)?)?$`), "https://NAME.openai.azure.com/openai/v1, or with /openai for deployments of the former API",
		"The resource's key."},
	{PlatformBedrock, []string{DialectAnthropic}, regexp.MustCompile(``), "https://bedrock-runtime.REGION.amazonaws.com",
		"`ACCESS-KEY-ID:SECRET` or `ACCESS-KEY-ID:SECRET:SESSION-TOKEN`, what a `credential_process` prints, or a Bedrock API key. Calls are signed for the region of the host, else for `region`."},
	{PlatformVertex, []string{DialectAnthropic, DialectGemini}, regexp.MustCompile(`^/v1(beta1)?/projects/[A-Za-z0-9:._-]+/locations/[a-z0-9-]+$`),
		"https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION", "The JSON key of a service account. It is exchanged for access tokens at `oauth2.googleapis.com`, and nowhere else."},
}

// awsHost are hosts of Bedrock that name their region.
var awsHost = regexp.MustCompile(`(^|\.)bedrock-runtime(-fips)?\.[a-z0-9-]+\.(vpce\.)?(amazonaws\.com(\.cn)?|api\.aws)$`)

// Platforms are the names of those that are built.
func Platforms() (names []string) {
	for _, p := range platforms {
		names = append(names, p.name)
	}
	return names
}

// PlatformsOf are those that are built for a dialect.
func PlatformsOf(dialect string) (names []string) {
	for _, p := range platforms {
		for _, d := range p.dialects {
			if d == dialect {
				names = append(names, p.name)
			}
		}
	}
	return names
}
