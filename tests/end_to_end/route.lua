-- Auto-routing as hospitals set it up: when a study is stable, its MR series go to the modality NODE, once.
-- The metadata "Routed" (declared in the configuration) is the guard: results stored into the study make it
-- stable again and must not send it round in a circle.
-- Not OnStableSeries: the events of a study's series are staggered, and the node would see it in pieces.

function OnStableStudy(studyId, tags, metadata)
  if metadata['Routed'] ~= nil then
    print('already routed: ' .. studyId)
    return
  end

  local series_to_send = {}
  for _, seriesId in pairs(ParseJson(RestApiGet('/studies/' .. studyId))['Series']) do
    local series = ParseJson(RestApiGet('/series/' .. seriesId))
    if series['MainDicomTags']['Modality'] == 'MR' then
      table.insert(series_to_send, seriesId)
    end
  end
  if #series_to_send == 0 then
    print('nothing to route: ' .. studyId)
    return
  end

  RestApiPut('/studies/' .. studyId .. '/metadata/Routed', 'yes')
  RestApiPost('/modalities/NODE/store', DumpJson({ Resources = series_to_send, Asynchronous = true }, true))
  print('routed ' .. #series_to_send .. ' series: ' .. studyId)
end
