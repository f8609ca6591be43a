"""The attributes that a result copies from its source, by module of PS3.3, and what the modules require of them."""

from __future__ import annotations

PATIENT = (
    "ReferencedPatientSequence", "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence", "SourcePatientGroupIdentificationSequence",
    "GroupOfPatientsIdentificationSequence", "PatientBirthDate", "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar", "PatientAlternativeCalendar",
    "PatientSex", "QualityControlSubject", "StrainDescription", "StrainNomenclature", "StrainStockSequence",
    "StrainAdditionalInformation", "StrainCodeSequence", "GeneticModificationsSequence", "OtherPatientNames",
    "OtherPatientIDsSequence", "ReferencedPatientPhotoSequence", "EthnicGroupCodeSequence",
    "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence",
    "BreedRegistrationSequence", "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization",
    "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
)  # fmt: skip
"""PS3.3 C.7.1.1."""

CLINICAL_TRIAL_SUBJECT = (
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "IssuerOfClinicalTrialProtocolID", "OtherClinicalTrialProtocolIDsSequence", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "IssuerOfClinicalTrialSiteID", "ClinicalTrialSubjectID",
    "IssuerOfClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "IssuerOfClinicalTrialSubjectReadingID",
    "ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
)  # fmt: skip
"""PS3.3 C.7.1.3."""

GENERAL_STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence", "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence", "StudyDescription", "ProcedureCodeSequence", "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence", "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence", "ReferencedStudySequence", "StudyInstanceUID", "StudyID",
    "RequestingService", "RequestingServiceCodeSequence", "ReasonForPerformedProcedureCodeSequence",
)  # fmt: skip
"""PS3.3 C.7.2.1."""

PATIENT_STUDY = (
    "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge", "PatientSize",
    "PatientSizeCodeSequence", "PatientBodyMassIndex", "MeasuredAPDimension", "MeasuredLateralDimension",
    "PatientWeight", "MedicalAlerts", "Allergies", "Occupation", "SmokingStatus", "AdditionalPatientHistory",
    "PregnancyStatus", "LastMenstrualDate", "PatientSexNeutered", "ReasonForVisit", "ReasonForVisitCodeSequence",
    "AdmissionID", "IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "ServiceEpisodeDescription",
    "IssuerOfServiceEpisodeIDSequence", "PatientState",
)  # fmt: skip
"""PS3.3 C.7.2.2."""

CLINICAL_TRIAL_STUDY = (
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "LongitudinalTemporalOffsetFromEvent",
    "LongitudinalTemporalEventType", "ClinicalTrialTimePointTypeCodeSequence", "IssuerOfClinicalTrialTimePointID",
    "ConsentForClinicalTrialUseSequence",
)  # fmt: skip
"""PS3.3 C.7.2.3."""

SPECIMEN = (
    "ContainerIdentifier", "IssuerOfTheContainerIdentifierSequence", "AlternateContainerIdentifierSequence",
    "ContainerTypeCodeSequence", "ContainerDescription", "ContainerComponentSequence", "SpecimenDescriptionSequence",
)  # fmt: skip
"""PS3.3 C.7.6.22."""

FRAME_OF_REFERENCE = ("FrameOfReferenceUID", "PositionReferenceIndicator")
"""PS3.3 C.7.4.1."""

EQUIPMENT = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "InstitutionName",
    "InstitutionalDepartmentName", "InstitutionAddress", "StationName", "AcquisitionDateTime", "AcquisitionDate",
    "AcquisitionTime",
)  # fmt: skip
"""PS3.3 C.7.5.1: named in a result as the equipment of acquisition."""

IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)  # fmt: skip
"""The image that a result references, and how it was compressed (PS3.3 C.7.6.1)."""

MEASURES = ("SliceThickness", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
"""Decimal strings of the plane (PS3.3 C.7.6.2), of the instance or in its functional groups."""

POSITIVE = ("SliceThickness",)
"""Lengths in mm."""

COPIED = (
    *PATIENT, *CLINICAL_TRIAL_SUBJECT, *GENERAL_STUDY, *PATIENT_STUDY, *CLINICAL_TRIAL_STUDY, *SPECIMEN,
    *FRAME_OF_REFERENCE, *EQUIPMENT, *IMAGE, *MEASURES,
)  # fmt: skip

TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""What is emptied rather than removed, and added if it is absent."""

IDENTIFYING = ("PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID",
               "FrameOfReferenceUID")  # fmt: skip
"""A source in which one of these is invalid has no result: another value would name another patient or image."""

ENUMERATED = {
    "PatientSex": ("M", "F", "O", ""),
    "PatientSexNeutered": ("ALTERED", "UNALTERED", ""),
    "QualityControlSubject": ("YES", "NO"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "SmokingStatus": ("YES", "NO", "UNKNOWN", ""),
    "PregnancyStatus": ("1", "2", "3", "4"),
    "LossyImageCompression": ("00", "01"),
    "ContextGroupExtensionFlag": ("Y", "N"),
    "ConsentForDistributionFlag": ("NO", "YES", "WITHDRAWN"),
    "UniversalEntityIDType": ("DNS", "EUI64", "ISO", "URI", "UUID", "X400", "X500"),
}
"""Enumerated values, and the empty value where the type is 2 or 3."""

REQUIRED_IN_ITEMS = {
    "ReferencedPatientSequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    "ReferencedStudySequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    "ReferencedSOPSequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    "ReferencedPatientPhotoSequence": ("ReferencedSOPSequence", "TypeOfInstances"),
    "SourcePatientGroupIdentificationSequence": ("PatientID",),
    "GroupOfPatientsIdentificationSequence": ("PatientID",),
    "OtherPatientIDsSequence": ("PatientID", "TypeOfPatientID"),
    "StrainStockSequence": ("StrainStockNumber", "StrainSource", "StrainSourceRegistryCodeSequence"),
    "GeneticModificationsSequence": ("GeneticModificationsDescription", "GeneticModificationsNomenclature"),
    "BreedRegistrationSequence": ("BreedRegistrationNumber", "BreedRegistryCodeSequence"),
    "OtherClinicalTrialProtocolIDsSequence": ("ClinicalTrialProtocolID", "IssuerOfClinicalTrialProtocolID"),
    "ConsentForClinicalTrialUseSequence": ("ConsentForDistributionFlag",),
    "ReferringPhysicianIdentificationSequence": ("PersonIdentificationCodeSequence",),
    "ConsultingPhysicianIdentificationSequence": ("PersonIdentificationCodeSequence",),
    "PhysiciansOfRecordIdentificationSequence": ("PersonIdentificationCodeSequence",),
    "PhysiciansReadingStudyIdentificationSequence": ("PersonIdentificationCodeSequence",),
}
"""The attributes of type 1 in the items of these sequences; an item without one of them is left out."""

ONE_ITEM = (
    "IssuerOfPatientIDQualifiersSequence", "IssuerOfAccessionNumberSequence", "IssuerOfAdmissionIDSequence",
    "IssuerOfServiceEpisodeIDSequence", "PersonIdentificationIssuerSequence", "AssigningFacilitySequence",
)  # fmt: skip
"""Sequences of a single item."""

PARTNERS = (
    ("PatientBirthDateInAlternativeCalendar", ("PatientAlternativeCalendar",)),
    ("PatientDeathDateInAlternativeCalendar", ("PatientAlternativeCalendar",)),
    ("ResponsiblePerson", ("ResponsiblePersonRole",)),
    ("LongitudinalTemporalOffsetFromEvent", ("LongitudinalTemporalEventType",)),
)
"""Optional attributes, and of which others one is required beside them (type 1C).

Patient Identity Removed requires one, too, but only if it is YES.
"""

DEIDENTIFICATION = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")

WHOLE_MODULES = (
    (
        CLINICAL_TRIAL_SUBJECT,
        (
            ("ClinicalTrialSponsorName",),
            ("ClinicalTrialProtocolID",),
            ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
        ),
        ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"),
    ),
    (CLINICAL_TRIAL_STUDY, (), ("ClinicalTrialTimePointID",)),
    (
        SPECIMEN,
        (("ContainerIdentifier",), ("SpecimenDescriptionSequence",)),
        ("IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence"),
    ),
)
"""Modules that an instance has or lacks as a whole: of which attributes it needs one each, and which it may leave empty
(type 2)."""

EMPTY_SEQUENCES = (
    "IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence", "IssuerOfTheSpecimenIdentifierSequence",
    "SpecimenPreparationSequence", "PatientBreedCodeSequence", "BreedRegistrationSequence",
)  # fmt: skip
"""Sequences of type 2: they may have no item."""
