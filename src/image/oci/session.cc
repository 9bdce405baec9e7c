// Which endpoints a registry has, and how requests to one are authorized.
#include <cstdlib>

#include "image/oci/challenge.h"
#include "image/oci/json_reader.h"
#include "image/oci/registry.h"

namespace smol::image {
namespace {

constexpr std::string_view kDockerIo = "docker.io";
constexpr std::string_view kDockerHost = "registry-1.docker.io";

// "host", "host:port/prefix", "https://host/prefix".
Result<Endpoint> endpoint_of(std::string_view location, const RegistryRules& rules,
                             const RegistryOptions& options) {
  Endpoint endpoint;
  const bool schemed = location.find("://") != std::string_view::npos;
  TRY_ASSIGN(endpoint.base, fetch::parse_url(schemed ? std::string(location)
                                                     : "https://" + std::string(location)));
  if (endpoint.base.target != "/") endpoint.prefix = endpoint.base.target;
  while (endpoint.prefix.ends_with('/')) endpoint.prefix.pop_back();
  endpoint.base.target = "/";
  endpoint.name = endpoint.base.authority();
  endpoint.verify = !rules.insecure;
  endpoint.may_be_plain = !schemed && (rules.insecure || fetch::is_loopback(endpoint.base.host));
  endpoint.ca_file = rules.ca.empty() ? options.ca_file : rules.ca;
  return endpoint;
}

}  // namespace

Result<RegistryOptions> RegistryOptions::of_host() {
  RegistryOptions options;
  TRY_ASSIGN(const std::string path, registries_path());
  TRY_ASSIGN(options.registries, read_registries(path));
  options.credential_files = image::credential_files();
  if (const char* const ca = std::getenv("SMOLVM_REGISTRY_CA"); ca != nullptr) options.ca_file = ca;
  return options;
}

Result<std::vector<Endpoint>> endpoints_of(const Reference& reference,
                                           const RegistryOptions& options) {
  const auto rules_of = [&](const std::string& name) {
    const auto found = options.registries.find(name);
    return found == options.registries.end() ? RegistryRules() : found->second;
  };
  const RegistryRules rules = rules_of(reference.registry);
  std::vector<Endpoint> endpoints;
  for (const std::string& mirror : rules.mirrors) {
    std::string_view name = mirror;
    if (const std::size_t scheme = name.find("://"); scheme != std::string_view::npos)
      name.remove_prefix(scheme + 3);
    auto endpoint =
        endpoint_of(mirror, rules_of(std::string(name.substr(0, name.find('/')))), options);
    if (!endpoint) return wrap(endpoint.error(), "mirror of {}", reference.registry);
    endpoints.push_back(std::move(*endpoint));
  }
  std::string location = rules.location;
  if (location.empty())
    location = reference.registry == kDockerIo ? kDockerHost : reference.registry;
  auto endpoint = endpoint_of(location, rules, options);
  if (!endpoint) return wrap(endpoint.error(), "registry {}", reference.registry);
  endpoint->name = reference.registry;
  endpoints.push_back(std::move(*endpoint));
  return endpoints;
}

RegistrySession::RegistrySession(Endpoint endpoint, const Reference& reference, std::string actions,
                                 const RegistryOptions& options, const std::atomic<bool>* stop)
    : endpoint_(std::move(endpoint)),
      // A mirror has credentials of its own.
      registry_(endpoint_.name),
      repository_(endpoint_.prefix.empty()
                      ? reference.repository
                      : endpoint_.prefix.substr(1) + "/" + reference.repository),
      actions_(std::move(actions)),
      options_(options),
      stop_(stop) {}

void RegistrySession::inherit(const RegistrySession& other) {
  const std::scoped_lock lock(mutex_, other.mutex_);
  plain_ = other.plain_;
  authorization_ = other.authorization_;
}

fetch::Url RegistrySession::base() const {
  const std::lock_guard lock(mutex_);
  fetch::Url url = endpoint_.base;
  if (plain_) {
    if (url.port == 443) url.port = 80;
    url.tls = false;
  }
  return url;
}

void RegistrySession::speak_plain() {
  const std::lock_guard lock(mutex_);
  plain_ = true;
}

std::string RegistrySession::authorization() const {
  const std::lock_guard lock(mutex_);
  return authorization_;
}

Result<> RegistrySession::load_credentials() {
  if (credentials_loaded_) return {};
  TRY_ASSIGN(credentials_, find_credentials(options_.credential_files, registry_, repository_));
  credentials_loaded_ = true;
  return {};
}

Result<> RegistrySession::authorize(fetch::Client& client, const std::string& header,
                                    const std::string& used) {
  const std::lock_guard lock(mutex_);
  if (authorization_ != used) return {};  // another thread has just been there
  TRY(load_credentials());
  for (const Challenge& challenge : parse_challenges(header)) {
    if (challenge.scheme == "bearer") {
      TRY_ASSIGN(const std::string token, get_token(client, challenge.parameters));
      if ("Bearer " + token == used) return fail("the token that its server gives is not accepted");
      authorization_ = "Bearer " + token;
      return {};
    }
    if (challenge.scheme != "basic") continue;
    if (!credentials_)
      return fail(
          "it wants a user name and a password, and none are stored ('docker login' or 'podman "
          "login' does)");
    std::string basic = "Basic " + fetch::base64(credentials_->user + ":" + credentials_->password);
    if (basic == used)
      return fail("the user name and password from {} are not accepted", credentials_->source);
    authorization_ = std::move(basic);
    return {};
  }
  return fail("it wants an authorization that is not known here");
}

namespace {

std::string parameter(const std::map<std::string, std::string>& parameters, const char* name) {
  const auto found = parameters.find(name);
  return found == parameters.end() ? "" : found->second;
}

Result<std::string> token_of(const std::string& body) {
  TRY_ASSIGN(const Json document, parse_object(body, "the token server's answer"));
  TRY_ASSIGN(std::string token, text_member(document, "token"));
  if (token.empty()) {
    TRY_ASSIGN(token, text_member(document, "access_token"));
  }
  if (token.empty() || token.find_first_of("\r\n ") != std::string::npos)
    return fail("the token server gives no token");
  return token;
}

}  // namespace

Result<std::string> RegistrySession::get_token(
    fetch::Client& client, const std::map<std::string, std::string>& parameters) {
  auto realm = fetch::parse_url(parameter(parameters, "realm"));
  if (!realm) return wrap(realm.error(), "the token server that it names");
  const std::string service = parameter(parameters, "service");
  std::string scopes = "&scope=" + fetch::percent_encode(scope());
  for (const std::string& more : more_scopes_) scopes += "&scope=" + fetch::percent_encode(more);
  fetch::Request request;
  request.url = *realm;
  std::string body;
  // A password never goes without TLS where the registry itself has it.
  const bool safe = realm->tls || fetch::is_loopback(realm->host) || !endpoint_.verify || plain_;
  if (credentials_ && !safe)
    return fail("its token server {} has no TLS: no password goes there", realm->origin());
  if (credentials_ && !credentials_->identity_token.empty()) {
    body = fmt::format("grant_type=refresh_token&client_id=smolvm&service={}&refresh_token={}{}",
                       fetch::percent_encode(service),
                       fetch::percent_encode(credentials_->identity_token), scopes);
    request.method = "POST";
    request.headers.emplace_back("Content-Type", "application/x-www-form-urlencoded");
    request.has_body = true;
    request.body = body;
  } else {
    std::string query = realm->target.find('?') == std::string::npos ? "?" : "&";
    query += "service=" + fetch::percent_encode(service) + scopes;
    if (credentials_) {
      query += "&account=" + fetch::percent_encode(credentials_->user);
      request.headers.emplace_back(
          "Authorization",
          "Basic " + fetch::base64(credentials_->user + ":" + credentials_->password));
    }
    request.url.target += query;
  }
  auto response = client.send(request);
  if (!response) return wrap(response.error().error, "its token server");
  if (response->status == 200) return token_of(response->body);
  const std::string reason = registry_errors(response->body);
  if (response->status == 401 || response->status == 403)
    return fail("its token server {} refuses {} ({}){}{}", realm->origin(),
                credentials_ ? "the user name and password from " + credentials_->source
                             : std::string("anybody without a user name and a password"),
                response->status, reason.empty() ? "" : ": ", reason);
  return fail("its token server {} answers {}{}{}", realm->origin(), response->status,
              reason.empty() ? "" : ": ", reason);
}

}  // namespace smol::image
