'use strict'

// Compares openapi.json with the mapping that the published versions of @pm2/js-api are generated from.

const assert = require('node:assert/strict')
const { describe, it } = require('node:test')

const { VERSIONS } = require('./client')
const openapi = require('../openapi.json')

/** The endpoints below `node` of a mapping, whose namespaces are objects and lists. */
const endpoints = node => {
  if (node === null || typeof node !== 'object') return []
  return typeof node.route?.name === 'string' ? [node] : Object.values(node).flatMap(endpoints)
}

/** The names of the fields that `schema` describes, in any of its alternatives. */
const names = schema => {
  if (schema.$ref) return names(openapi.components.schemas[schema.$ref.split('/').pop()])
  const parts = [...(schema.allOf ?? []), ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])]
  return new Set([...Object.keys(schema.properties ?? {}), ...parts.flatMap(part => [...names(part)])])
}

const required = schema => {
  if (schema.$ref) return required(openapi.components.schemas[schema.$ref.split('/').pop()])
  return [...(schema.required ?? []), ...(schema.allOf ?? []).flatMap(required)]
}

const schemaOf = ({ content }) => content['application/json'].schema

/** Not the whole, as `.` is, nor within a field, as `options.theme` is. */
const isField = ({ name }) => name !== 'Array' && !name.includes('.')

/** The mapping calls the answer so as a whole; the clients read its members right there. */
const WHOLE = { 'GET /api/users/isLogged': 'user' }

for (const version of VERSIONS) {
  const mapping = endpoints(require(`js-api-${version}/src/api_mappings.json`))
  const shared = mapping.flatMap(endpoint => {
    const path = endpoint.route.name.replace(/:(\w+)/g, '{$1}')
    const operation = openapi.paths[path]?.[endpoint.route.type.toLowerCase()]
    return operation ? [{ title: `${endpoint.route.type} ${path}`, endpoint, operation }] : []
  })

  describe(`the description, next to @pm2/js-api ${version}`, () => {
    it('has the routes that both have', () => {
      assert.ok(shared.length >= 20, `${shared.length}`)
    })

    for (const { title, endpoint, operation } of shared) {
      it(title, () => {
        const sent = (endpoint.body ?? []).filter(isField)
        const body = operation.requestBody ? schemaOf(operation.requestBody) : {}
        const taken = names(body)
        for (const { name } of sent) assert.ok(taken.has(name), `the body has no ${name}`)
        const always = sent.filter(({ optional }) => !optional).map(({ name }) => name)
        for (const name of required(body)) assert.ok(always.includes(name), `${name} is not always sent`)

        const query = (operation.parameters ?? []).filter(parameter => parameter.in === 'query')
        assert.deepEqual(query.map(({ name }) => name), (endpoint.query ?? []).map(({ name }) => name))

        const answer = names(schemaOf(operation.responses[200]))
        for (const { name } of (endpoint.response ?? []).filter(isField)) {
          if (WHOLE[title] === name) continue
          assert.ok(answer.has(name), `the answer has no ${name}`)
        }
        assert.equal(operation.deprecated ?? false, Boolean(endpoint.deprecated))
      })
    }
  })
}
